import { Report } from "@tutelage/proto/campaigns/v1/campaigns";
import { Version } from "@tutelage/proto/datasets/v1/datasets";
import { type ExportedStudent, ExportForm } from "@tutelage/proto/student/v1/student";
import { type Task, TaskKind } from "@tutelage/proto/task/v1/task";
import { TeacherProfile } from "@tutelage/proto/teacher/v1/teacher";
import { ExportRun, StudentProfile } from "@tutelage/proto/training/v1/training";
import { expect, test } from "vitest";
import { modelCard } from "./modelcard.js";

const accuracy = { successes: 15, n: 20, value: 0.75, ci95Low: 0.53, ci95High: 0.89 };

function card(
  exported: Partial<ExportedStudent>,
  form = ExportForm.ADAPTER,
  task: Partial<Task> = {},
  messages: { role: string; content: string }[] = [],
): string {
  return modelCard({
    report: Report.fromPartial({
      campaign: {
        run: { id: "c-1", finishedAt: new Date("2026-03-04T05:06:07Z") },
        request: {
          name: "a | name\nwith a line",
          teacherProfile: "gemma",
          task: { name: "t", kind: TaskKind.TEXT, promptTemplate: 'Say "{input}"\nA:', ...task },
        },
        outcome: {
          summary: "It is better.",
          chosenIteration: 1,
          baseline: { name: "plain", trainRows: 12, steps: 60, testAccuracy: accuracy },
          final: { name: "campaign", trainRows: 30, steps: 75, testAccuracy: { ...accuracy, value: 0.8 } },
          gain: { gain: 0.05, ci95Low: -0.02, ci95High: 0.12, n: 20 },
        },
      },
      iterations: [
        { number: 0, accepted: 18 },
        { number: 1, accepted: 5 },
      ],
      seedRows: [{ row: { id: "r", messages } }],
    }),
    exportRun: ExportRun.fromPartial({
      request: { form },
      exported: {
        model: "hf:org/name@abc",
        modelDigest: "d1",
        dtype: "float32",
        check: { passed: true, rows: 3 },
        ...exported,
      },
    }),
    seedVersion: Version.fromPartial({ digest: "seeds", splits: { train: 12, dev: 4, test: 20 } }),
    finalVersion: Version.fromPartial({ digest: "final", splits: { train: 30, dev: 4, test: 20 } }),
    student: StudentProfile.fromPartial({ license: "Apache-2.0" }),
    teacher: TeacherProfile.fromPartial({ provider: "embedded", model: "m", terms: "Only for good." }),
  });
}

test("it says what the student is, from what it was made, and how much better it is on the same rows", () => {
  const text = card({});
  expect(text).toMatch(/^---\nlibrary_name: transformers\n[\s\S]*license: "apache-2.0"\nbase_model: "org\/name"\n/);
  for (const fact of [
    "# a ' name with a line",
    "on 2026-03-04: campaign\n`c-1`",
    "| plain fine-tuning on the seed rows | 12 | 60 | 75.0 % (53.0 % to 89.0 %, n = 20) | – |",
    "the difference is +5.0 points (95 % interval −2.0 to +12.0)",
    "30 rows; the teacher wrote 18 of its dataset's; dataset digest `final`",
    "Terms: Only for good.",
    "SHA-256 `d1`. Licence: Apache-2.0.",
  ]) {
    expect(text).toContain(fact);
  }
});

test.each<[string, Partial<ExportedStudent>, string]>([
  ["a hub", {}, 'AutoModelForCausalLM.from_pretrained("org/name", revision="abc", dtype="auto")'],
  ["the folder beside it", { includesBase: true }, 'from_pretrained(folder + "/base", dtype="auto")'],
  ["a Python package", { model: "package:llm_x/a.gguf" }, 'find_spec("llm_x").submodule_search_locations[0]'],
  ["a GGUF in it", { model: "package:llm_x/a.gguf" }, 'from_pretrained(base, gguf_file="a.gguf", dtype=torch.float32)'],
  ["elsewhere", { model: "file:/secret/place" }, 'base = "path/to/the/base"'],
])("an adapter's base is loaded from %s", (_, exported, code) => {
  expect(card(exported)).toContain(code);
});

test("a free text is generated, a label is the likeliest, with the end of sequence only where it was scored", () => {
  expect(card({}, ExportForm.MERGED)).toContain('template = "Say \\"{input}\\"\\nA:"');
  expect(card({}, ExportForm.MERGED)).toContain("attention_mask=torch.ones_like(ids), generation_config=settings)");
  const labels = [
    { name: "yes", description: "" },
    { name: "yes or no", description: "either" },
  ];
  const scored = card({ labelsEndWithEos: true }, ExportForm.MERGED, { labels });
  expect(scored).toContain('labels = ["yes", "yes or no"]');
  expect(scored).toContain("+ [tokenizer.eos_token_id]");
  expect(card({}, ExportForm.MERGED, { labels })).not.toContain("eos_token_id");
  expect(scored).not.toContain("peft");
});

test("a conversation is asked through the chat template, and its labels follow it without a space", () => {
  const labels = [
    { name: "yes", description: "" },
    { name: "no", description: "" },
  ];
  const text = card({}, ExportForm.MERGED, { labels }, [{ role: "user", content: "Well?" }]);
  expect(text).toContain("apply_chat_template(turns, add_generation_prompt=True, tokenize=False)");
  expect(text).toContain("answer = tokenizer(label, add_special_tokens=False)");
  expect(text).not.toContain("template = ");
});
