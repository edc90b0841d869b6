/** A job on the slot of a student: which of its errors mean "wait", and which end the run. */
import { setTimeout as sleep } from "node:timers/promises";
import { TutelageError } from "./errors.js";
import { type Lease, LeaseLost, TryLater } from "./runs.js";

/** What a run lived through with the student; part of the state of every run that uses it. */
export interface StudentWait {
  /** Since when the student could not be reached, ISO 8601; null while it answers. */
  unreachableSince?: string | null;
  /** Times that the student went away in the middle of this run since it last kept something. */
  studentLosses?: number;
}

/** How a job is followed. */
export interface StudentJobOptions<State> {
  /** Students to ask in turn for a free slot. */
  students?: number;
  /**
   * Longest silence once the student has begun: it is left then, and the run queued again. Its process is not ours to
   * end: the student ends itself when its work hangs, and its supervisor ends one that does not answer.
   */
  silenceMs?: number;
  /** Ends the call, and its reason is thrown; without it the lease's own signal does. */
  stop?: AbortSignal;
  /** Whether something was kept since the claim that the next attempt goes on from. */
  hasKept?: () => boolean;
  /** More to store where the student was lost or fell silent. */
  onLost?: (lost: { kind: "went_away" | "stalled"; message: string }) => Partial<State>;
}

/** The student said nothing for longer than its work can take. */
export class StudentStalled extends TutelageError {
  constructor(silenceMs: number) {
    super("unavailable", `The student made no progress for ${silenceMs / 1_000} s.`, { reason: "student_stalled" });
  }
}

/** Another job holds the slot; asking costs the student nothing. */
const busyRetryMs = 500;
/** The student is starting, or being started again. */
const unreachableRetryMs = 1_000;
/** A supervisor restarts a dead student within seconds; a first model download takes minutes. */
const unreachablePatienceMs = 20 * 60_000;
/** A run that takes the student down this often (out of memory, most likely) is the cause itself. */
const maxStudentLosses = 5;
/** Loading a model, or downloading it, is silent. */
const beginningPatienceMs = 20 * 60_000;
/** What lies in the socket when this process wakes from being stopped is read before anybody is called silent. */
const wakingMs = 1_000;

/**
 * The events of a streaming call to the first student with a free slot. Ends
 * the call when the lease's signal aborts or the reader stops reading. Throws
 * TryLater while all are busy or away, and a TutelageError with a stable reason
 * when the run is over.
 */
export async function* studentJob<Event, State extends StudentWait = StudentWait>(
  lease: Lease<unknown, State>,
  open: (signal: AbortSignal) => AsyncIterable<Event>,
  options: StudentJobOptions<State> = {},
): AsyncGenerator<Event> {
  const ended = new AbortController();
  const { silenceMs, students = 1, stop = lease.signal } = options;
  const ends = AbortSignal.any([stop, ended.signal]);
  let began = false;
  let events = open(ends)[Symbol.asyncIterator]();
  const nextEvent = async (): Promise<IteratorResult<Event>> => {
    for (let refusals = 1; ; refusals += 1) {
      try {
        if (silenceMs === undefined) return await events.next();
        return await spoken(events.next(), began ? silenceMs : Math.max(silenceMs, beginningPatienceMs));
      } catch (error) {
        if (began || !isBusy(error) || refusals >= students) throw error;
        events = open(ends)[Symbol.asyncIterator]();
      }
    }
  };
  try {
    for (;;) {
      const next = await nextEvent();
      if (next.done) return;
      began = true;
      yield next.value;
    }
  } catch (error) {
    if (stop.aborted) throw stop.reason;
    if (lease.signal.aborted || !(error instanceof TutelageError)) throw error;
    throw await afterError(lease, error, began, options);
  } finally {
    ended.abort();
    // Not waited for: a silent student says nothing to that either.
    events.return?.().catch(() => {});
  }
}

/** What is said within the limit. Throws StudentStalled. */
async function spoken<Said>(said: Promise<Said>, silenceMs: number): Promise<Said> {
  const heard = new AbortController();
  const silence = async () => {
    await sleep(silenceMs, undefined, { signal: heard.signal });
    await sleep(wakingMs, undefined, { signal: heard.signal });
    throw new StudentStalled(silenceMs);
  };
  try {
    return await Promise.race([said, silence()]);
  } finally {
    heard.abort();
    // Whoever left is not waiting for how it ends.
    said.catch(() => {});
  }
}

async function afterError<State extends StudentWait>(
  lease: Lease<unknown, State>,
  error: TutelageError,
  began: boolean,
  { hasKept = () => false, onLost = () => ({}) }: StudentJobOptions<State>,
): Promise<TutelageError | TryLater> {
  const { unreachableSince } = lease.run.state;
  const studentLosses = hasKept() ? 0 : (lease.run.state.studentLosses ?? 0);
  const report = (message: string, wait: StudentWait, more: Partial<State> = {}) =>
    lease.report({ message }, { ...more, ...wait } as Partial<State>);
  // Whoever tries the run again has the same patience anew.
  const giveUp = async (message: string, reason: string) => {
    await lease.report({}, { studentLosses: 0, unreachableSince: null } as Partial<State>);
    return new TutelageError("unavailable", message, { reason, cause: error });
  };
  if (!began && isBusy(error)) {
    await report("waiting for the student: another job holds it", { unreachableSince: null });
    return new TryLater(busyRetryMs, "the student is busy");
  }
  if (isStudentAway(error)) {
    const stalled = error instanceof StudentStalled;
    if (stalled && studentLosses + 1 >= maxStudentLosses) {
      return await giveUp(
        `The student stopped making progress ${maxStudentLosses} times in this run; its log says in what.`,
        error.reason,
      );
    }
    if (began && studentLosses + 1 >= maxStudentLosses) {
      return await giveUp(
        `The student went away ${maxStudentLosses} times in the middle of this run. It may be out of memory: lower recipe.micro_batch_tokens, or see its log.`,
        "student_died_too_often",
      );
    }
    const lost = began || stalled;
    const since = lost ? undefined : unreachableSince;
    if (since && Date.now() - Date.parse(since) > unreachablePatienceMs) {
      return await giveUp(`The student was unreachable since ${since}. Is it running?`, "student_unavailable");
    }
    const wait = { unreachableSince: since ?? new Date().toISOString() };
    if (lost) {
      const message = stalled ? error.message : "The student went away.";
      const more = onLost({ kind: stalled ? "stalled" : "went_away", message });
      await report(`${message} It is waited for.`, { ...wait, studentLosses: studentLosses + 1 }, more);
    } else await report("waiting for the student: it does not answer", wait);
    return new TryLater(unreachableRetryMs, "the student cannot be reached");
  }
  // The student saw a higher fence: somebody else holds the run.
  if (error.code === "failed_precondition" && /\bfence\b/.test(error.message)) return new LeaseLost(lease.run.id);
  return namedStudentError(error);
}

/** True when another job has the slot. */
function isBusy(error: unknown): error is TutelageError {
  if (!(error instanceof TutelageError) || error.code !== "resource_exhausted") return false;
  return namedStudentError(error).reason !== "out_of_memory";
}

/** True when the call ended because the process on the other side did: refused, cut, or cancelled by its shutdown. */
function isStudentAway({ code }: TutelageError): boolean {
  return code === "unavailable" || code === "cancelled";
}

/** An error of the student with a stable reason, and without details that are not for a client. */
export function namedStudentError(error: TutelageError): TutelageError {
  if (isStudentAway(error)) {
    return new TutelageError("unavailable", "The student cannot be reached. Is it running?", {
      reason: "student_unavailable",
      cause: error,
    });
  }
  if (error.code === "internal") {
    return new TutelageError("internal", "The student failed; its log has the details.", {
      reason: error.reason === "internal" ? "student_failed" : error.reason,
      cause: error,
    });
  }
  // A disk that cannot be written has one name, whoever meets it.
  const [, diskFault] = /^(disk_full|disk_read_only): /.exec(error.message) ?? [];
  const reason = diskFault ?? (error.reason === error.code ? defaultReason(error) : error.reason);
  return new TutelageError(error.code, error.message, { reason, fields: [...error.fields], cause: error });
}

/** The student says which field is wrong at the start of its message: "rows: none to train on; …". */
function defaultReason({ code, message }: TutelageError): string {
  if (code === "invalid_argument") {
    if (/^rows\.messages: .*has no chat template/.test(message)) return "chat_template_missing";
    if (/^rows\.messages: .*chat template refuses/.test(message)) return "chat_template_refused";
    return /^rows: (none|no rows)/.test(message) ? "rows_empty" : "student_refused";
  }
  if (code === "resource_exhausted") return /memory/i.test(message) ? "out_of_memory" : "student_exhausted";
  if (code === "data_loss") return "artifact_digest_mismatch";
  if (code === "deadline_exceeded") return "student_timed_out";
  return `student_${code}`;
}
