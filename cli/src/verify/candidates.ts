/** Checks each candidate's way from the seed row to the verdict: wrong answer, prompt, raw reply, what it reads as, the row it became. */
import { purposeOf } from "@tutelage/platform/campaignledger";
import { type AskedRow, questionMark, readWritten } from "@tutelage/platform/teacherreply";
import type { Candidate } from "@tutelage/proto/campaigns/v1/campaigns";
import { Row, RowOrigin } from "@tutelage/proto/task/v1/task";
import type { Call, Result } from "@tutelage/proto/teacher/v1/teacher";
import { type Evidence, isReviewed, rowsOf, settingsAt, type VersionRows, wholeCall } from "./evidence.js";
import type { Findings } from "./findings.js";
import { settled } from "./iterations.js";

const list = "candidates";

export async function checkCandidates(evidence: Evidence, found: Findings): Promise<string> {
  const { candidates } = evidence;
  found.same(
    list,
    "their numbers",
    candidates.map(({ number }) => number),
    [...candidates.keys()],
  );
  const committed = new Set(candidates.map(({ iteration }) => iteration));
  let replies = 0;
  for (const iteration of committed) {
    const own = candidates.filter((one) => one.iteration === iteration);
    const results = resultsOf(evidence, iteration);
    if (results.length !== own.length) {
      found.differs(list, `iteration ${iteration} has ${own.length}, and its teacher gave ${results.length} results`);
      continue;
    }
    const answers = settled(evidence, iteration);
    for (const [index, candidate] of own.entries()) {
      const result = results[index] as Result;
      checkOrigin(candidate, result, found);
      const answer = answers.get(candidate.seedRowId);
      const wrong = answer === undefined || answer.correct ? "" : answer.answer;
      if (!isReviewed(evidence)) found.same(list, `${named(candidate)}: wrong_answer`, candidate.wrongAnswer, wrong);
      const placed = evidence.calls.get(candidate.callId);
      const seedRow = evidence.rows.get(candidate.seedRowId);
      if (placed === undefined) found.differs("calls", `${candidate.callId}, of ${named(candidate)}, is missing`);
      else if (seedRow === undefined)
        found.differs("rows", `${candidate.seedRowId}, of ${named(candidate)}, is missing`);
      else {
        const read = checkReply(evidence, named(candidate), seedRow, result, await wholeCall(evidence, placed), found);
        replies += Number(read);
      }
      checkVerdict(evidence, candidate, found);
    }
  }
  const others = await checkOtherReplies(evidence, found);
  const accepted = checkRows(evidence, found);
  return `${candidates.length} candidates, ${replies + others} replies read anew, ${accepted} rows with their whole chain`;
}

/** What was written for no candidate: in the pre-flight, and for arms, whose rows say which call gave them. */
async function checkOtherReplies(evidence: Evidence, found: Findings): Promise<number> {
  const ofCandidates = new Set(evidence.candidates.map(({ callId }) => callId));
  const written = new Map<string, Result>();
  let replies = 0;
  const writing = [...evidence.results].filter(([runId]) => isWriting(evidence, runId));
  for (const result of writing.flatMap(([, results]) => results)) {
    const placed = evidence.calls.get(result.callId);
    const seedRow = evidence.rows.get(result.rowId);
    if (result.outcome?.$case === "candidate") written.set(result.callId, result);
    if (placed === undefined || seedRow === undefined || ofCandidates.has(result.callId)) continue;
    const what = `a result for row ${result.rowId}`;
    replies += Number(await checkReply(evidence, what, seedRow, result, await wholeCall(evidence, placed), found));
  }
  const given = givenRows(evidence);
  for (const { id, input, output, messages, metadata, origin } of evidence.rows.values()) {
    const callId = metadata.call_id;
    // What a user's own file says in fields of these names is the user's.
    if (origin !== RowOrigin.SYNTHETIC || given.has(id) || callId === undefined || metadata.arm === undefined) continue;
    const outcome = written.get(callId)?.outcome;
    const again = outcome?.$case === "candidate" ? outcome.value : undefined;
    found.same("rows", `row ${id}, of arm ${metadata.arm}`, { input, output, messages }, again);
  }
  return replies;
}

/** Whether a run was asked for rows, not for labels. */
function isWriting({ generationRuns }: Evidence, runId: string): boolean {
  return /(^|_)write$/.test(purposeOf(generationRuns.get(runId)?.runKey ?? "").purpose);
}

/** The teacher's results of an iteration, in the order in which they were judged. */
function resultsOf({ steps, results }: Evidence, iteration: number): Result[] {
  const all: Result[] = [];
  for (let run = 0; ; run += 1) {
    const step = steps.get(`iteration/${iteration}/generate${run === 0 ? "" : `/${run}`}`);
    if (step === undefined) return all;
    all.push(...(results.get(step.generationRunId) ?? []));
  }
}

/** A candidate is the teacher's result, and was rejected with its reason where that gave no row. */
function checkOrigin(candidate: Candidate, result: Result, found: Findings): void {
  const { outcome } = result;
  const written = outcome?.$case === "candidate" ? outcome.value : { input: "", output: "", messages: [] };
  const { seedRowId, callId, teacherProfile, input, output, messages } = candidate;
  found.same(
    list,
    named(candidate),
    { seedRowId, callId, teacherProfile, input, output, messages },
    { seedRowId: result.rowId, callId: result.callId, teacherProfile: result.teacherProfile, ...written },
  );
  if (outcome?.$case === "rejection") {
    found.same(list, `${named(candidate)}: rejection`, candidate.rejection, outcome.value.code);
  }
}

/** Reasons that follow from what only the service knows: which examples were shown, what became of a call. */
const notOfReply = new Set(["truncated", "copied_seed", "too_long", "provider_error"]);

/** Whether the reply could be read anew. */
function checkReply(
  { task }: Pick<Evidence, "task">,
  what: string,
  seedRow: Row,
  { outcome }: Result,
  call: Call,
  found: Findings,
): boolean {
  if (outcome === undefined || (outcome.$case === "rejection" && notOfReply.has(outcome.value.code))) return false;
  if (!showsRow(call.prompt, seedRow)) {
    found.differs("calls", `call ${call.id}, of ${what}: its prompt does not show row ${seedRow.id}`);
  }
  const text = replyText(call.rawReply);
  // As long as the reply: what was shown beside the seed row is in the prompt only, and no length is too much here.
  const filler = "·".repeat(text.length);
  const shown = Row.fromPartial({ input: filler, output: filler });
  const asked: AskedRow = { task, seedRow, examples: [shown], ...askedForm(call.prompt) };
  const again = readWritten(asked, { text, finish: "stop" });
  const code = (one: typeof outcome) => (one.$case === "rejection" ? { code: one.value.code } : one.value);
  found.same("calls", `call ${call.id}, of ${what}: what its reply reads as`, code(outcome), code(again));
  return true;
}

/** The model's words in a raw reply: the body of an OpenAI-compatible endpoint, or the text itself. */
export function replyText(raw: string): string {
  try {
    const [choice] = JSON.parse(raw).choices;
    return choice.message?.content ?? choice.text ?? "";
  } catch {
    return raw;
  }
}

/** The messages of a chat's prompt; undefined for a base model's, which is a text. */
function messagesOf(prompt: string): { content: string }[] | undefined {
  try {
    const messages = JSON.parse(prompt);
    return Array.isArray(messages) ? messages : undefined;
  } catch {
    return undefined;
  }
}

function showsRow(prompt: string, { input, messages }: Row): boolean {
  const chat = messagesOf(prompt);
  if (chat === undefined) return prompt.includes(input);
  const shown = messages.length === 0 ? input : messages.map(({ role, content }) => ({ role, content }));
  return chat.some(({ content }) => content.includes(JSON.stringify(shown)));
}

/** How the row was asked for: a base model's prompt ends with the words that were put into its mouth. */
export function askedForm(prompt: string): Pick<AskedRow, "form" | "opening"> {
  if (messagesOf(prompt) !== undefined) return { form: "chat", opening: "" };
  const lines = prompt.split("\n");
  const last = lines.at(-1) ?? "";
  const opening = lines.at(-2) === "<<<" ? last : last.replace(/^- ?/, "");
  return { form: "list_continuation", opening: last.startsWith(questionMark) ? "" : opening };
}

function checkVerdict(evidence: Evidence, candidate: Candidate, found: Findings): void {
  const { accepted, rejection, probability, rowId, iteration } = candidate;
  if (accepted === (rejection !== "") || accepted === (rowId === "")) {
    found.differs(
      list,
      `${named(candidate)}: accepted ${accepted}, rejection "${rejection}" and row "${rowId}" do not fit`,
    );
  }
  const least = settingsAt(evidence, iteration)?.acceptProbability ?? 0;
  if (accepted && probability < least) {
    found.differs(list, `${named(candidate)}: was accepted at ${probability}, below accept_probability ${least}`);
  }
}

/** Each accepted candidate is a row of the next version, and each synthetic row that a student learned from was one. */
function checkRows(evidence: Evidence, found: Findings): number {
  const byRow = new Map<string, Candidate>();
  for (const candidate of evidence.candidates) {
    if (!candidate.accepted) continue;
    byRow.set(candidate.rowId, candidate);
    const row = evidence.rows.get(candidate.rowId);
    const { input, output, messages, seedRowId } = candidate;
    const parent = evidence.rows.get(seedRowId);
    const rootRowId = parent === undefined || parent.rootRowId === "" ? seedRowId : parent.rootRowId;
    found.same(
      "rows",
      `row "${candidate.rowId}", of ${named(candidate)}`,
      row && {
        input: row.input,
        output: row.output,
        messages: row.messages,
        parentRowId: row.parentRowId,
        rootRowId: row.rootRowId,
        iteration: row.iteration,
      },
      { input, output, messages, parentRowId: seedRowId, rootRowId, iteration: candidate.iteration + 1 },
    );
  }
  const given = givenRows(evidence);
  for (const id of rowsLearnedFrom(evidence)) {
    if (!byRow.has(id) && !given.has(id))
      found.differs(list, `none was accepted as row ${id}, which a student learned from`);
  }
  return byRow.size;
}

/** The rows that the campaign began with: synthetic ones may be among them, of a campaign before. */
function givenRows({ versions, campaign }: Evidence): Set<string> {
  return new Set([...rowsOf(versions.get(campaign.request?.datasetVersionId ?? ""))].map(({ id }) => id));
}

/** The synthetic rows of the iterations' versions. */
function rowsLearnedFrom({ iterations, versions, campaign }: Evidence): Set<string> {
  const used = new Set<VersionRows>();
  for (const id of [...iterations.map((one) => one.datasetVersionId), campaign.outcome?.datasetVersionId ?? ""]) {
    const version = versions.get(id);
    if (version !== undefined) used.add(version);
  }
  const ids = new Set<string>();
  for (const version of used) {
    for (const { id, origin } of rowsOf(version)) if (origin === RowOrigin.SYNTHETIC) ids.add(id);
  }
  return ids;
}

function named({ number }: Candidate): string {
  return `candidate ${number}`;
}
