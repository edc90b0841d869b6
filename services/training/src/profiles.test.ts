import { fileURLToPath } from "node:url";
import { TuningMethod } from "@tutelage/proto/student/v1/student";
import { expect, test } from "vitest";
import { loadProfiles, parseProfiles } from "./profiles.js";

const good = `
profiles:
  small:
    model: hf:org/name@0123abc
    recipe: {method: full, epochs: 1, batch_rows: 4, micro_batch_tokens: 512, learning_rate: 1.0e-4,
      warmup_share: 0, weight_decay: 0, max_grad_norm: 1}
`;

test("the committed file is right", async () => {
  const profiles = await loadProfiles(fileURLToPath(new URL("../profiles.yaml", import.meta.url)));
  expect([...profiles.keys()]).toContain("smollm2-135m");
});

test("a full fine-tuning and a probe need no adapter fields", () => {
  expect(parseProfiles(good, "p.yaml").get("small")).toMatchObject({
    name: "small",
    description: "",
    recipe: { method: TuningMethod.FULL, loraRank: 0, averageShare: 0, microBatchTokens: 512 },
  });
  const probe = parseProfiles(good.replace("method: full", "method: probe"), "p.yaml").get("small");
  expect(probe?.recipe?.method).toBe(TuningMethod.PROBE);
});

test.each([
  ["not YAML", "profiles: [", "is not YAML"],
  ["empty", "", "the file"],
  ["no student", "profiles: {}", "profiles: name at least one student"],
  ["a wrong name", good.replace("small:", "Small one:"), "profiles.Small one"],
  ["a path as the model", good.replace("hf:org/name@0123abc", "/models/x"), "profiles.small.model: must be"],
  ["no revision", good.replace("@0123abc", ""), "profiles.small.model: must be"],
  ["a misspelt field", good.replace("epochs", "epoch"), "profiles.small.recipe"],
  ["a missing field", good.replace(", batch_rows: 4", ""), "profiles.small.recipe.batch_rows"],
  ["a text for a number", good.replace("epochs: 1", "epochs: many"), "profiles.small.recipe.epochs"],
  ["a value out of range", good.replace("1.0e-4", "3"), "profiles.small.recipe.learning_rate: is 3; use more than 0"],
  ["no adapter rank", good.replace("method: full", "method: lora"), "profiles.small.recipe.lora_rank"],
])("%s is refused and the field named", (_, text, problem) => {
  expect(() => parseProfiles(text, "p.yaml")).toThrow(`Student profiles p.yaml: `);
  expect(() => parseProfiles(text, "p.yaml")).toThrow(problem);
});

test("a file that is not there names the setting", async () => {
  await expect(loadProfiles("/none.yaml")).rejects.toThrow(/cannot be read \(ENOENT\); set STUDENT_PROFILES/);
});
