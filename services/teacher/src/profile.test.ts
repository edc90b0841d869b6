import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { parseProfiles, readProfiles } from "./profile.js";

const problem = (yaml: string) => {
  try {
    parseProfiles(yaml, "profiles.yaml");
  } catch (error) {
    return (error as Error).message;
  }
  return "";
};
const profile = (lines: string) => `profiles:\n  - name: a\n    provider: openai-compatible\n    model: m\n${lines}`;

test("the committed file offers the built-in teacher", async () => {
  const profiles = await readProfiles(fileURLToPath(new URL("../profiles.yaml", import.meta.url)));
  expect(profiles.get("gemma3-270m")).toMatchObject({ provider: "embedded", temperature: 0.8, top_p: 0.95 });
});

test.each([
  ["    base_url: ftp://x", "profiles.0.base_url"],
  ["    base_url: http://user:pw@x/v1", "profiles.0.base_url"],
  ["    base_url: http://x/v1\n    temprature: 1", "temprature"],
  ["    base_url: http://x/v1\n    max_retries: 99", "profiles.0.max_retries"],
  ["    base_url: http://x/v1\n    api: completions\n    prompt_form: chat", "profiles.0.prompt_form"],
  ["    base_url: http://x/v1\n    api: completions\n    scores_labels: true", "profiles.0.scores_labels"],
  ["    base_url: http://x/v1\n    fallback: b", 'profiles.0.fallback: there is no "b"'],
  ["    base_url: http://x/v1\n    fallback: a", "profiles.0.fallback: is the profile itself"],
  ["    base_url: http://x/v1\n    breaker: { failures: 0 }", "profiles.0.breaker.failures"],
  ["    base_url: http://x/v1\n    breaker: { first_probe_ms: 9000, longest_probe_ms: 10 }", "longest_probe_ms"],
  [
    "    base_url: http://x/v1\n  - name: a\n    provider: openai-compatible\n    model: m\n    base_url: http://x/v1",
    "twice",
  ],
])("a wrong profile names its field: %s", (lines, field) => {
  expect(problem(profile(lines))).toContain(field);
});

test("a pasted key is refused without being repeated", () => {
  const said = problem(profile("    base_url: http://x/v1\n    api_key: sk-secret-123"));
  expect(said).toContain("profiles.0.api_key");
  expect(said).not.toContain("sk-secret");
  expect(problem("profiles: [\n  api_key: sk-secret-123: {")).not.toContain("sk-secret");
});

test("an embedded model is a reference to a package or an absolute file", () => {
  const embedded = (model: string) => problem(`profiles:\n  - { name: e, provider: embedded, model: "${model}" }`);
  expect(embedded("package:mod/x.gguf")).toBe("");
  expect(embedded("file:/models/x.gguf")).toBe("");
  expect(embedded("file:x.gguf")).toContain("profiles.0.model");
  expect(embedded("package:../../x.gguf")).toContain("profiles.0.model");
});
