import { campaignFileDefinitions } from "@tutelage/gateway/campaignfile";
import { expect, test } from "vitest";
import { apiSchema } from "./apischema.js";
import type { SchemaNode } from "./knownnames.js";
import { campaignJsonSchema, campaignSpec, parseSpec } from "./spec.js";

test("mistakes in a campaign are named with their line", () => {
  const text =
    "name: a\ndata:\n  train: x.jsonl\n  trian: y.jsonl\ntask:\n  kind: sorting\n  prompt_template: '{input}'\n";
  expect(() => parseSpec(text, "c.yaml")).toThrow(/c\.yaml:4: data\.trian is not a known field/);
  expect(() => parseSpec(text, "c.yaml")).toThrow(/c\.yaml:6: task\.kind/);
  const spec = (task: string) => `name: x\ndata: {train: a}\ntask: ${task}`;
  expect(parseSpec(spec("sentiment"), "c.yaml").task).toBe("sentiment");
  expect(() => parseSpec(spec("two words"), "c.yaml")).toThrow(/c\.yaml:3: task: .*1 to 100 letters/);
  expect(() => parseSpec(spec("{kind: luck}"), "c.yaml")).toThrow(/c\.yaml:3: task\.kind/);
  expect(() => parseSpec("name: [", "c.yaml")).toThrow(/^c\.yaml:1: /);
});

test("names that settings, recipe or task do not know are refused with the one that was meant", () => {
  const text = `name: a
data: {train: x.jsonl, colums: {}}
task:
  kind: extraction
  prompt_templat: "{input}"
  fields:
    - {name: when, type: string, optionl: true}
settings:
  iteratons: 2
  recipe:
    lora_rnk: 8
  nothing_like_it: 1
`;
  const told = (text_: string) => {
    try {
      parseSpec(text_, "c.yaml");
      return [];
    } catch (error) {
      return (error as Error).message.split("\n");
    }
  };
  expect(told(text)).toEqual([
    'c.yaml:2: data.colums is not a known field; did you mean "columns"?',
    'c.yaml:5: task.prompt_templat is not a known field; did you mean "prompt_template"?',
    'c.yaml:7: task.fields.0.optionl is not a known field; did you mean "optional"?',
    'c.yaml:9: settings.iteratons is not a known field; did you mean "iterations"?',
    'c.yaml:11: settings.recipe.lora_rnk is not a known field; did you mean "lora_rank"?',
    "c.yaml:12: settings.nothing_like_it is not a known field",
  ]);
  const fine = "name: a\ndata: {train: x}\ntask: {kind: text, max_answer_tokens: 5, labels: [a, {name: b}]}\n";
  expect(told(`${fine}settings: {seed: 2, decoding: {stop: [x]}}`)).toEqual([]);
});

test("the schema for editors has the API's settings, recipe and task", () => {
  const schema = campaignJsonSchema();
  expect(apiSchema, "run: npm run build && node tools/apischema.mjs").toEqual(campaignFileDefinitions());
  const at = (...names: string[]) =>
    names.reduce<SchemaNode | undefined>((node, name) => {
      const found = node?.properties?.[name];
      return found?.$ref === undefined ? found : schema.$defs?.[found.$ref.replace("#/$defs/", "")];
    }, schema);
  expect(at("settings", "iterations")).toMatchObject({
    type: "integer",
    description: expect.stringContaining("Rounds"),
  });
  expect(at("settings", "mining")).toMatchObject({ enum: ["in_sample", "cross_fit"] });
  expect(at("settings", "recipe", "method")).toMatchObject({ enum: ["lora", "full", "probe"] });
  // A name, or a task.
  const [name, task] = schema.properties?.task?.anyOf ?? [];
  expect(name?.type).toBe("string");
  expect(task?.required).toEqual(["kind"]);
  expect(task?.properties?.labels?.items?.anyOf?.map(({ type }) => type)).toEqual(["string", "object"]);
  expect(task?.properties).toMatchObject({
    kind: { enum: ["classification", "multiple_choice", "math", "text", "extraction"] },
    fields: { items: { $ref: "#/$defs/ExtractionField" } },
    grader: { enum: expect.arrayContaining(["json_fields", "rouge_l"]) },
    rouge_l_threshold: { minimum: 0, maximum: 1 },
    max_answer_tokens: { type: "integer" },
  });
});

test("what is checked before anything is sent knows the API's kinds, graders and types", () => {
  const { Task, ExtractionField } = apiSchema;
  const task = campaignSpec.shape.task.options[1].shape;
  expect(task.kind.options).toEqual(Task?.properties?.kind?.enum);
  expect(task.grader.unwrap().options).toEqual(Task?.properties?.grader?.enum);
  expect(task.fields.unwrap().element.shape.type.options).toEqual(ExtractionField?.properties?.type?.enum);
  const wrong =
    "name: a\ndata: {train: x.jsonl}\ntask:\n  kind: extraction\n  fields:\n    - {name: when, type: date}\n";
  expect(() => parseSpec(wrong, "c.yaml")).toThrow(/c\.yaml:6: task\.fields\.0\.type/);
});
