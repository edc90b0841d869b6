/** The README.md of a student that is taken home: what it is, how good, and how to ask it. Pure. */
import { signedPoints } from "@tutelage/platform/signedpoints";
import type { ArmResult, Report } from "@tutelage/proto/campaigns/v1/campaigns";
import type { Version } from "@tutelage/proto/datasets/v1/datasets";
import type { Proportion } from "@tutelage/proto/evaluation/v1/evaluation";
import { type ExportedStudent, ExportForm } from "@tutelage/proto/student/v1/student";
import type { Task } from "@tutelage/proto/task/v1/task";
import type { TeacherProfile } from "@tutelage/proto/teacher/v1/teacher";
import type { ExportRun, StudentProfile } from "@tutelage/proto/training/v1/training";

export interface CardFacts {
  report: Report;
  exportRun: ExportRun;
  /** The rows that the user brought, and those that the student was trained on. */
  seedVersion: Version;
  finalVersion: Version;
  student: StudentProfile | undefined;
  teacher: TeacherProfile | undefined;
}

export function modelCard(facts: CardFacts): string {
  const { report, exportRun } = facts;
  const { run, request, outcome } = report.campaign ?? {};
  const exported = exportRun.exported;
  const task = request?.task;
  if (run === undefined || request === undefined || outcome === undefined || exported === undefined || !task) {
    throw new Error("A model card needs a campaign that has succeeded and its export.");
  }
  const made = run.finishedAt?.toISOString().slice(0, 10) ?? "";
  return `${frontMatter(facts, exported)}
# ${line(request.name || task.name)}

A small language model for one task, made by [Tutelage](https://arxiv.org/abs/2403.15042) (LLM2LLM) on ${made}: campaign
\`${run.id}\`. ${line(outcome.summary)}

## How to ask it
${howToAsk(facts, exported, task)}
## How good it is
${metrics(report)}
## What it was made from
${origins(facts, exported)}
## The check of these files
${checkText(exported)}`;
}

function frontMatter({ student }: CardFacts, { model }: ExportedStudent): string {
  const lines = ["library_name: transformers", "pipeline_tag: text-generation"];
  if (student?.license) lines.push(`license: ${JSON.stringify(student.license.toLowerCase())}`);
  if (model.startsWith("hf:")) lines.push(`base_model: ${JSON.stringify(hubName(model).name)}`);
  return `---\n${lines.join("\n")}\ntags: [tutelage, llm2llm]\n---\n`;
}

/** Plain transformers (and PEFT for an adapter); the tests run just this text. */
function howToAsk({ exportRun, report }: CardFacts, exported: ExportedStudent, task: Task): string {
  const adapter = exportRun.request?.form === ExportForm.ADAPTER;
  const scored = report.campaign?.request?.settings?.decoding?.scoreLabels ?? task.labels.length > 0;
  const load = adapter ? adapterLoading(exported) : mergedLoading;
  const conversation = report.seedRows.some(({ row }) => (row?.messages.length ?? 0) > 0);
  const ask = scored ? askLabels(exported, conversation) : askText;
  const how = conversation
    ? "It is asked with the turns of a conversation, through the model's chat template."
    : "The prompt is this text, with the input in the place of `{input}`; the answer follows after one space.";
  const fromPackage = adapter && exported.model.startsWith("package:") && !exported.includesBase;
  const needs = ["torch", "transformers", ...(adapter ? ["peft"] : []), ...(fromPackage ? ["gguf"] : [])];
  const imports = [
    ...(fromPackage ? ["import importlib.util", ""] : []),
    "import torch",
    ...(adapter ? ["from peft import PeftModel"] : []),
    `from transformers import AutoModelForCausalLM, AutoTokenizer${scored ? "" : ", GenerationConfig"}`,
  ];
  return `${how} Asked
otherwise it will do worse. Needs ${needs.map((name) => `\`${name}\``).join(", ")}${fromPackage ? ` and the Python package that holds \`${line(exported.model)}\`` : ""}.

\`\`\`python
${imports.join("\n")}

folder = "."  # where this file lies
${conversation ? "" : `template = ${python(task.promptTemplate)}\n`}${scored ? `labels = ${python(task.labels.map(({ name }) => name))}\n` : ""}tokenizer = AutoTokenizer.from_pretrained(folder)
${load}

${conversation ? promptOfTurns : promptOfText}

${ask}

print(ask(${conversation ? '[{"role": "user", "content": "an input"}]' : python("an input")}))
\`\`\`
${
  scored
    ? `
The labels: ${task.labels.map(({ name, description }) => `\`${line(name)}\`${description === "" ? "" : ` (${line(description)})`}`).join(", ")}.
`
    : ""
}`;
}

const mergedLoading = `model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")`;

/** The base weights by what they are: beside the adapter, on a hub, or in a Python package. */
function adapterLoading({ model, modelDigest, includesBase }: ExportedStudent): string {
  const put = "model = PeftModel.from_pretrained(base, folder)";
  if (includesBase) {
    return `base = AutoModelForCausalLM.from_pretrained(folder + "/base", dtype="auto")\n${put}`;
  }
  if (model.startsWith("hf:")) {
    const { name, revision } = hubName(model);
    const from = `${python(name)}, revision=${python(revision)}, dtype="auto"`;
    return `base = AutoModelForCausalLM.from_pretrained(${from})\n${put}`;
  }
  const [module = "", ...rest] = model.replace(/^package:/, "").split("/");
  const [where, file] = model.startsWith("package:")
    ? [`importlib.util.find_spec(${python(module)}).submodule_search_locations[0]`, rest.join("/")]
    : [python("path/to/the/base"), ""];
  const gguf = file === "" ? `dtype="auto"` : `gguf_file=${python(file)}, dtype=torch.float32`;
  return `base = ${where}  # ${line(model)}, SHA-256 ${modelDigest}
base = AutoModelForCausalLM.from_pretrained(base, ${gguf})
${put}`;
}

/** The prompt's token ids, as the student was taught them. */
const promptOfText = `def prompt_of(text):
    return tokenizer(template.replace("{input}", text))["input_ids"]`;

const promptOfTurns = `def prompt_of(turns):
    text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    return tokenizer(text, add_special_tokens=False)["input_ids"]`;

/** As the campaign measured it: the likeliest label. */
function askLabels({ labelsEndWithEos }: ExportedStudent, conversation: boolean): string {
  const end = labelsEndWithEos ? " + [tokenizer.eos_token_id]" : "";
  return `@torch.inference_mode()
def ask(question):
    prompt = prompt_of(question)
    def score(label):
        answer = tokenizer(${conversation ? "label" : '" " + label'}, add_special_tokens=False)["input_ids"]${end}
        values = model(torch.tensor([prompt + answer])).logits[0].float().log_softmax(-1)
        return sum(values[len(prompt) - 1 + at, token] for at, token in enumerate(answer))
    return max(labels, key=score)`;
}

const askText = `settings = GenerationConfig.from_pretrained(folder)
def ask(question):
    ids = torch.tensor([prompt_of(question)])
    written = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)
    return tokenizer.decode(written[0, ids.shape[1]:], skip_special_tokens=True).strip()`;

function metrics({ campaign, iterations }: Report): string {
  const outcome = campaign?.outcome;
  if (outcome === undefined) return "";
  const arms: [string, ArmResult | undefined][] = [
    ["plain fine-tuning on the seed rows", outcome.baseline],
    [outcome.plainReturned ? "this student (the plain one)" : "this student", outcome.final],
  ];
  const rows = arms.flatMap(([name, arm]) =>
    arm === undefined
      ? []
      : [
          `| ${name} | ${arm.trainRows} | ${arm.steps} | ${accuracy(arm.testAccuracy)} | ${accuracy(arm.choosingScore)} |`,
        ],
  );
  const { gain } = outcome;
  const difference =
    gain === undefined
      ? "There were no test rows, so nothing is said about rows that took no part in a choice."
      : `On the same ${gain.n} test rows the difference is ${signedPoints(gain.gain)} points (95 % interval ${signedPoints(gain.ci95Low)} to ${signedPoints(gain.ci95High)}).`;
  const which = outcome.plainReturned
    ? "No iteration was better than plain fine-tuning where the choice was made, so the plain student is returned."
    : `It is the student of iteration ${outcome.chosenIteration} of ${iterations.length}.`;
  return `| | rows | steps | test accuracy (95 % interval) | the score it was chosen by |
|---|---|---|---|---|
${rows.join("\n")}

${difference} ${which}
`;
}

function origins(
  { report, seedVersion, finalVersion, student, teacher }: CardFacts,
  exported: ExportedStudent,
): string {
  const request = report.campaign?.request;
  const seeds = seedVersion.splits;
  const { final, chosenIteration = -1 } = report.campaign?.outcome ?? {};
  const written = report.iterations
    .filter(({ number }) => number < chosenIteration)
    .reduce((sum, { accepted }) => sum + accepted, 0);
  const licence = student?.license ? line(student.license) : "not said in the student profile; see its source";
  const terms = teacher?.terms ? line(teacher.terms) : "not said in the teacher profile; see its provider";
  const teacherName = `\`${line(request?.teacherProfile ?? "")}\`${teacher === undefined ? "" : `, ${line(teacher.provider)} \`${line(teacher.model)}\``}`;
  return `- Base model: \`${line(exported.model)}\`, SHA-256 \`${exported.modelDigest}\`. Licence: ${licence}.
- Seed rows: ${seeds?.train ?? 0} to train on, ${seeds?.dev ?? 0} to choose by, ${seeds?.test ?? 0} to measure on; dataset digest \`${seedVersion.digest}\`.
- Trained on: ${final?.trainRows ?? 0} rows; the teacher wrote ${written} of its dataset's; dataset digest \`${finalVersion.digest}\`.
- Teacher that wrote the synthetic rows: ${teacherName}. Terms: ${terms}
- Checkpoint: SHA-256 \`${report.campaign?.outcome?.final?.checkpoint?.sha256 ?? ""}\`; these files (without this one): SHA-256 \`${exported.sha256}\`.
`;
}

function checkText({ check, dtype, measuredDtype }: ExportedStudent): string {
  const rows = (check?.comparisons ?? []).map(
    (one) =>
      `| ${one.compared} against ${one.reference} | ${one.sameAnswers} of ${check?.rows ?? 0} | ${one.maxLogProbabilityDifference.toPrecision(2)} | ${one.tolerance} |`,
  );
  return `Before they were offered, plain transformers${rows.some((row) => row.includes("adapter")) ? " and PEFT" : ""} answered ${check?.rows ?? 0} of the campaign's rows with them, and the answers were
compared with those of the student that was measured (which computed in ${measuredDtype}; the files are in ${dtype}).

| compared | same answers | largest difference of log-probabilities (nats) | allowed |
|---|---|---|---|
${rows.join("\n")}
`;
}

function accuracy(one: Proportion | undefined): string {
  if (one === undefined) return "–";
  const percent = (value: number) => `${(value * 100).toFixed(1)} %`;
  return `${percent(one.value)} (${percent(one.ci95Low)} to ${percent(one.ci95High)}, n = ${one.n})`;
}

/** "hf:org/name@revision". */
function hubName(model: string): { name: string; revision: string } {
  const [name = "", revision = ""] = model.slice("hf:".length).split("@");
  return { name, revision };
}

/** A text or a list of texts as Python writes it; JSON's escapes are Python's. */
function python(value: string | string[]): string {
  return Array.isArray(value) ? `[${value.map(python).join(", ")}]` : JSON.stringify(value);
}

/** A user's text within a line of Markdown. */
function line(text: string): string {
  return text.replace(/\s+/g, " ").replace(/[`|<]/g, "'").trim();
}
