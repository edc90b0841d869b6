/** What a run has to do: jobs with numbered attempts, and which attempts are next. Pure. */
import type { BudgetNotice } from "@tutelage/platform/monthbudget";
import type { Outcome } from "@tutelage/platform/teacheroutcome";
import { readWritten } from "@tutelage/platform/teacherreply";
import type { StartGenerationRunRequest } from "@tutelage/proto/teacher/v1/teacher";
import { labelAsk, labelExamples, labelMethod, labelReferences, readLabel } from "./labelprompt.js";
import type { TeacherProfileSettings } from "./profile.js";
import { roomCharacters, scoresLabels } from "./profile.js";
import { writeAsk, writePlan } from "./prompt.js";
import type { Ask, Reply, Sampling } from "./teacher.js";

/** What is stored and sent of a request: all but the key, which the run row has, and for whom it is. */
export type GenerationRequest = Omit<StartGenerationRunRequest, "idempotencyKey" | "owner">;

/** What a run row keeps beside its status. */
export interface GenerationState {
  budgetExhausted: boolean;
  /** Orders or rows that the budget left short. */
  ordersLeft: number;
  /** Set while it waits. */
  waiting: StoredWait | null;
  /** Marks of the project's month that it was the first to pass. */
  budgetNotices: BudgetNotice[];
}

/** One order or row of a run. */
export interface Job {
  /** Index of the order or row in the request. */
  position: number;
  rowId: string;
  count: number;
  maxAttempts: number;
  firstAttempt: number;
  /** The question of an attempt, and how its reply is read. */
  attempt(number: number): { ask: Ask; read(reply: Reply): Outcome };
}

/** Why a run waits for its teacher, and since when; times as ISO 8601, as it is stored. */
export interface StoredWait {
  profile: string;
  code: string;
  message: string;
  since: string;
  until: string;
}

/** The jobs of a request, in its order. */
export function jobsOf(request: GenerationRequest, profile: TeacherProfileSettings): Job[] {
  const { task, work } = request;
  if (task === undefined || work === undefined) return [];
  const sampling: Sampling = {
    temperature: profile.temperature,
    topP: profile.top_p,
    topK: profile.provider === "embedded" ? profile.top_k : 0,
    maxTokens: profile.max_tokens,
  };
  const form = profile.prompt_form;
  const seed = request.replicateSeed;
  if (work.$case === "write") {
    const { orders, style } = work.value;
    return orders.map((order, position) => ({
      position,
      rowId: order.seedRow?.id ?? "",
      count: order.count,
      maxAttempts: order.maxAttempts,
      firstAttempt: order.firstAttempt,
      attempt: (number) => {
        const plan = writePlan(form, task, order, number, seed, roomCharacters(profile), style);
        return { ask: writeAsk(plan, sampling), read: (reply) => readWritten(plan, reply) };
      },
    }));
  }
  const { rows, exampleRows, attempt: firstAttempt } = work.value;
  const method = labelMethod(task, profile.provider, scoresLabels(profile));
  return rows.map((row, position) => ({
    position,
    rowId: row.id,
    count: 1,
    maxAttempts: 1,
    // An earlier release stored none.
    firstAttempt: firstAttempt ?? 0,
    attempt: () => {
      const examples = labelExamples(task, row, exampleRows, seed);
      const references = method === "score" ? labelReferences(examples, exampleRows, seed) : [];
      const plan = { task, row, examples, references, method, form };
      return { ask: labelAsk(plan, sampling), read: (reply) => readLabel(plan, reply) };
    },
  }));
}

/**
 * The attempts of a job to make now, given the outcomes of those already made.
 * Attempts go in waves: first as many as rows are wanted, then as many as are
 * still missing. So which attempts are made depends on the replies alone,
 * never on their order of arrival or on a restart between them.
 */
export function nextAttempts(
  job: Pick<Job, "count" | "maxAttempts" | "firstAttempt">,
  made: ReadonlyMap<number, Outcome>,
): number[] {
  const end = job.firstAttempt + job.maxAttempts;
  let start = job.firstAttempt;
  let wanted = job.count;
  while (wanted > 0 && start < end) {
    const wave = Array.from({ length: Math.min(wanted, end - start) }, (_, index) => start + index);
    const missing = wave.filter((number) => !made.has(number));
    if (missing.length > 0) return missing;
    wanted -= wave.filter((number) => made.get(number)?.$case !== "rejection").length;
    start += wave.length;
  }
  return [];
}
