/** The worker of generation runs. */
import { setMaxListeners } from "node:events";
import type { Database } from "@tutelage/platform/database";
import { TutelageError } from "@tutelage/platform/errors";
import type { Logger } from "@tutelage/platform/log";
import { Rest } from "@tutelage/platform/rest";
import { TryLater } from "@tutelage/platform/runs";
import type { Outcome } from "@tutelage/platform/teacheroutcome";
import { Budget, type WallMet } from "./budget.js";
import { Caller, type CallSignals, type ProfiledTeacher, type Settled } from "./caller.js";
import { canWrite } from "./request.js";
import { settleEarlierHolders, spentBy } from "./reservations.js";
import { Slot, type SlotClients } from "./slot.js";
import type { GenerationLease, Store } from "./store.js";
import { TeacherFailure } from "./teacher.js";
import type { Teachers } from "./teachers.js";
import { Wait } from "./wait.js";
import { TeacherAway } from "./weather.js";
import { type GenerationState, type Job, jobsOf, nextAttempts } from "./work.js";

/** Attempts in a row that got no reply at all before a teacher on this machine counts as broken. */
const maxFailuresInRow = 10;
/** After a shutdown begins calls under way may still end, for this long: a reply that is paid for is worth keeping. */
export const shutdownGraceMs = 4_000;
const reportMs = 300;

export interface GenerationDependencies {
  database: Database;
  store: Store;
  teachers: Teachers;
  log: Logger;
  slotClients: SlotClients;
  /** Aborts when the service stops. */
  shutdown: AbortSignal;
}

/**
 * Works off one run, as far as its budget goes. What was stored before, by this
 * holder or an earlier one, is not asked again.
 */
export async function generate(
  lease: GenerationLease,
  dependencies: GenerationDependencies,
): Promise<{ state: Pick<GenerationState, "budgetExhausted" | "ordersLeft" | "waiting"> }> {
  const { database, store, teachers, log } = dependencies;
  const { request } = lease.run;
  const teacher = teachers.get(request.teacherProfile);
  const jobs = jobsOf(request, teacher.profile);
  // Whoever is asked, the first that is there.
  const askable = [teacher, ...teachers.fallbackOf(teacher.profile)]
    .filter(({ profile }) => profile === teacher.profile || canWrite(request, profile.prompt_form))
    .map((one) => ({ teacher: one, jobs: one === teacher ? jobs : jobsOf(request, one.profile) }));
  await settleEarlierHolders(database, lease);
  const budget = new Budget(request.budget, await spentBy(database, lease.run.projectId, lease.run.id));
  const made = await store.outcomes(lease.run.projectId, lease.run.id);
  const slot = new Slot(dependencies.slotClients, lease.run.projectId, `teacher generation ${lease.run.id}`);
  const failed = new AbortController();
  const given = new AbortController();
  const giveUpLater = () => setTimeout(() => given.abort(), shutdownGraceMs).unref();
  dependencies.shutdown.addEventListener("abort", giveUpLater, { once: true });
  if (dependencies.shutdown.aborted) giveUpLater();
  // Whoever cancels does not wait for a slow teacher; whoever pauses does: what is under way is paid for.
  const giveUp = () => given.abort();
  lease.cancelled.addEventListener("abort", giveUp, { once: true });
  if (lease.cancelled.aborted) giveUp();
  const begin = AbortSignal.any([lease.signal, failed.signal, slot.lost.signal]);
  // As many listeners as there are calls at once.
  setMaxListeners(0, begin, given.signal);
  const signals = ({ profile }: ProfiledTeacher): CallSignals => ({
    begin,
    end: given.signal,
    hold: async () => (profile.provider === "embedded" ? await slot.hold(begin) : undefined),
  });
  const wait = new Wait(lease);
  const progress = reporter(lease, jobs, made);
  let failuresInRow = 0;
  let failure: unknown;
  let ordersLeft = 0;

  const settle = async (job: Job, number: number, outcomes: Map<number, Outcome>, caller: Caller): Promise<Settled> => {
    const { position, rowId } = job;
    let soonest: TeacherAway | undefined;
    for (const one of askable) {
      const { ask, read } = (one.jobs[position] as Job).attempt(number);
      const seen = (reply: Parameters<typeof read>[0]) => {
        const outcome = read(reply);
        outcomes.set(number, outcome);
        return outcome;
      };
      try {
        const asked = { position, rowId, number, ask, read: seen };
        return await caller.settle(lease, one.teacher, asked, budget, signals(one.teacher));
      } catch (error) {
        if (!(error instanceof TeacherAway)) throw error;
        if (soonest === undefined || error.retryInMs < soonest.retryInMs) soonest = error;
      }
    }
    throw soonest;
  };

  /** False when there was not enough left in the budget. */
  const attempt = async (
    job: Job,
    number: number,
    outcomes: Map<number, Outcome>,
    caller: Caller,
  ): Promise<boolean> => {
    const settled = await settle(job, number, outcomes, caller);
    if (settled === "over_budget") return false;
    if (settled === "answered") await wait.end();
    if (settled === "answered" || settled === "reused") {
      failuresInRow = 0;
      return true;
    }
    outcomes.set(number, { $case: "rejection", value: { code: "provider_error", message: "", rawReply: "" } });
    // A question that the teacher refuses (too long, a bad request) says nothing about the others.
    if (settled.retryable && !teacher.weather.hasProvider) failuresInRow += 1;
    if (failuresInRow >= maxFailuresInRow) throw settled;
    return true;
  };

  const caller = new Caller(store, database, log);
  const workOff = async (job: Job) => {
    const outcomes = made.get(job.position) ?? new Map<number, Outcome>();
    for (;;) {
      const numbers = nextAttempts(job, outcomes);
      if (numbers.length === 0) return;
      const asked = await allSettled(numbers.map((number) => attempt(job, number, outcomes, caller)));
      // The next order is looked at all the same: its reply may be stored, and cost nothing.
      if (asked.includes(false)) {
        ordersLeft += 1;
        return;
      }
    }
  };

  try {
    const queue = jobs.values();
    await allSettled(
      // As many loops as calls at once: each has at least one attempt to make.
      Array.from({ length: teacher.profile.max_concurrency }, async () => {
        for (const job of queue) {
          begin.throwIfAborted();
          await workOff(job).catch((error: unknown) => {
            failure ??= begin.aborted ? undefined : error;
            failed.abort(error);
            throw error;
          });
          progress.jobDone();
        }
      }),
    );
  } catch (error) {
    // Cancelled, lease lost, shutting down: platform/runs knows which.
    lease.signal.throwIfAborted();
    if (slot.lost.signal.aborted) throw new TryLater(500, "the student dropped the slot");
    if (failure instanceof TeacherAway) throw await wait.later(failure);
    throw asRunFailure(failure ?? error, teacher);
  } finally {
    slot.release();
    dependencies.shutdown.removeEventListener("abort", giveUpLater);
    lease.cancelled.removeEventListener("abort", giveUp);
    await progress.stop();
  }
  const { met } = budget;
  if (met !== undefined && lease.run.request.budget?.rests) {
    await lease.report({}, { ordersLeft, waiting: null });
    throw restAt(met, ordersLeft);
  }
  return { state: { budgetExhausted: budget.exhausted, ordersLeft, waiting: null } };
}

/** A run at a wall, that may go on when the wall is moved. */
function restAt({ scope, line, until }: WallMet, ordersLeft: number): Rest {
  const whose = scope === "run" ? "budget" : "project's budget of this month";
  return new Rest(
    "BUDGET_EXHAUSTED",
    `${scope}_${line.name}`,
    `The ${whose} has not enough left for another call: ${line.used} of ${line.cap} ${line.name} are used, and ` +
      `${ordersLeft} orders or rows are left. Raise the cap to go on.`,
    until,
  );
}

/** Waits for all, then throws the first error: no call is left under way when this returns. */
async function allSettled<Value>(works: Promise<Value>[]): Promise<Value[]> {
  return (await Promise.allSettled(works)).map((settled) => {
    if (settled.status === "rejected") throw settled.reason;
    return settled.value;
  });
}

function asRunFailure(error: unknown, { profile }: ProfiledTeacher): unknown {
  if (!(error instanceof TeacherFailure)) return error;
  const down = error.fatal ? "" : `${maxFailuresInRow} calls in a row got no reply. `;
  return new TutelageError("failed_precondition", `Teacher profile "${profile.name}": ${down}${error.message}`, {
    reason: error.code,
  });
}

/** Stores progress at most every reportMs: each report wakes every watcher. */
function reporter(lease: GenerationLease, jobs: Job[], made: ReadonlyMap<number, ReadonlyMap<number, Outcome>>) {
  const unit = lease.run.request.work?.$case === "label" ? "rows" : "orders";
  const before = jobs.filter((job) => nextAttempts(job, made.get(job.position) ?? new Map()).length === 0).length;
  const began = performance.now();
  let done = 0;
  let sent = Promise.resolve();
  let dirty = true;
  const send = () => {
    if (!dirty) return;
    dirty = false;
    const perJobSeconds = done <= before ? 0 : (performance.now() - began) / 1_000 / (done - before);
    const etaSeconds = Math.round(perJobSeconds * (jobs.length - done) * 10) / 10;
    // A lost lease shows at the next write of a result, and must not end the process here.
    sent = sent.then(() => lease.report({ done, total: jobs.length, unit, etaSeconds }).catch(() => {}));
  };
  const timer = setInterval(send, reportMs);
  send();
  return {
    jobDone: () => {
      done += 1;
      dirty = true;
    },
    stop: async () => {
      clearInterval(timer);
      send();
      await sent;
    },
  };
}
