/** A job on the student's one slot: which of its errors mean "wait", and which end the run. */
import { TutelageError } from "./errors.js";
import { type Lease, LeaseLost, TryLater } from "./runs.js";

/** What a run lived through with the student; part of the state of every run that uses it. */
export interface StudentWait {
  /** Since when the student could not be reached, ISO 8601; null while it answers. */
  unreachableSince?: string | null;
  /** Times that the student went away in the middle of this run. */
  studentLosses?: number;
}

/** Another job holds the slot; asking costs the student nothing. */
const busyRetryMs = 500;
/** The student is starting, or being started again. */
const unreachableRetryMs = 1_000;
/** A supervisor restarts a dead student within seconds; a first model download takes minutes. */
const unreachablePatienceMs = 20 * 60_000;
/** A run that takes the student down this often (out of memory, most likely) is the cause itself. */
const maxStudentLosses = 5;

/**
 * The events of a streaming call to the student. Ends the call when the lease's
 * signal aborts or the reader stops reading. Throws TryLater while the student
 * is busy or away, and a TutelageError with a stable reason when the run is over.
 */
export async function* studentJob<Event>(
  lease: Lease<unknown, StudentWait>,
  open: (signal: AbortSignal) => AsyncIterable<Event>,
): AsyncGenerator<Event> {
  const ended = new AbortController();
  let began = false;
  try {
    for await (const event of open(AbortSignal.any([lease.signal, ended.signal]))) {
      began = true;
      yield event;
    }
  } catch (error) {
    if (lease.signal.aborted || !(error instanceof TutelageError)) throw error;
    throw await afterError(lease, error, began);
  } finally {
    ended.abort();
  }
}

async function afterError(
  lease: Lease<unknown, StudentWait>,
  error: TutelageError,
  began: boolean,
): Promise<TutelageError | TryLater> {
  const { unreachableSince, studentLosses = 0 } = lease.run.state;
  if (error.code === "resource_exhausted" && !began && error.reason !== "out_of_memory") {
    await lease.report({ message: "waiting for the student: another job holds it" }, { unreachableSince: null });
    return new TryLater(busyRetryMs, "the student is busy");
  }
  if (isStudentAway(error)) {
    if (began && studentLosses + 1 >= maxStudentLosses) {
      return new TutelageError(
        "unavailable",
        `The student went away ${maxStudentLosses} times in the middle of this run. It may be out of memory: lower recipe.micro_batch_tokens, or see its log.`,
        { reason: "student_died_too_often", cause: error },
      );
    }
    const since = began ? undefined : unreachableSince;
    if (since && Date.now() - Date.parse(since) > unreachablePatienceMs) {
      return new TutelageError("unavailable", `The student was unreachable since ${since}. Is it running?`, {
        reason: "student_unavailable",
        cause: error,
      });
    }
    await lease.report(
      { message: began ? "the student went away; starting again" : "waiting for the student: it does not answer" },
      {
        unreachableSince: since ?? new Date().toISOString(),
        ...(began ? { studentLosses: studentLosses + 1 } : {}),
      },
    );
    return new TryLater(unreachableRetryMs, "the student cannot be reached");
  }
  // The student saw a higher fence: somebody else holds the run.
  if (error.code === "failed_precondition" && /\bfence\b/.test(error.message)) return new LeaseLost(lease.run.id);
  return namedStudentError(error);
}

/**
 * True when the call ended because the process on the other side did: refused,
 * cut (grpc-js says INTERNAL for a reset stream), or cancelled by its shutdown.
 */
function isStudentAway(error: TutelageError): boolean {
  return (
    error.code === "unavailable" ||
    error.code === "cancelled" ||
    (error.code === "internal" && /RST_STREAM|ECONNRESET/.test(error.message))
  );
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
