/**
 * The fixed set of error codes. Each maps to one gRPC status (grpc.ts) and one
 * HTTP status (the gateway), and nowhere else.
 */
export type ErrorCode =
  | "invalid_argument"
  | "not_found"
  | "already_exists"
  | "failed_precondition"
  | "unauthenticated"
  | "resource_exhausted"
  | "aborted"
  | "cancelled"
  | "deadline_exceeded"
  | "unavailable"
  | "data_loss"
  | "unimplemented"
  | "internal";

/** What is wrong with one field of a request. */
export interface FieldViolation {
  /** Path of the field, e.g. "settings.iterations". */
  field: string;
  /** What is wrong and how to mend it. */
  description: string;
}

interface ErrorOptions_ {
  /** Stable, machine-readable reason, finer than the code: "teacher_unauthorized". */
  reason?: string;
  fields?: FieldViolation[];
  /** The underlying error; logged, never sent to a client. */
  cause?: unknown;
}

/**
 * The one error class. Made where the fact is known; its message is for the
 * person who made the request and says what to do.
 */
export class TutelageError extends Error {
  readonly code: ErrorCode;
  readonly reason: string;
  readonly fields: readonly FieldViolation[];

  constructor(code: ErrorCode, message: string, options: ErrorOptions_ = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "TutelageError";
    this.code = code;
    this.reason = options.reason ?? code;
    this.fields = options.fields ?? [];
  }
}

/** A request whose field is wrong. `description` says what is wrong and how to mend it. */
export function invalidField(field: string, description: string, reason?: string): TutelageError {
  return new TutelageError("invalid_argument", `${field}: ${description}`, {
    fields: [{ field, description }],
    ...(reason === undefined ? {} : { reason }),
  });
}

/** A thing that is not there, or is another project's. */
export function notFound(noun: string, id: string): TutelageError {
  return new TutelageError(
    "not_found",
    `There is no ${noun} "${id}" in this project; correct it, or list what there is.`,
    {
      reason: `${noun.replaceAll(" ", "_")}_not_found`,
    },
  );
}

const diskFaults: Record<string, readonly [reason: string, message: string]> = {
  ENOSPC: ["disk_full", "The disk is full. Free some space on it, then try again."],
  EDQUOT: ["disk_full", "The disk quota is used up. Raise it or free some space, then try again."],
  EROFS: ["disk_read_only", "The disk can only be read now. Have it mounted for writing, then try again."],
  // Postgres's own.
  "53100": ["disk_full", "The database's disk is full. Free some space on it, then try again."],
};

/** A disk that cannot be written, by name; the cause, which is logged, says where. Undefined for anything else. */
function diskFault(thrown: unknown): TutelageError | undefined {
  for (let current = thrown; current instanceof Error; current = current.cause) {
    const found = diskFaults[(current as NodeJS.ErrnoException).code ?? ""];
    if (found === undefined) continue;
    const [reason, message] = found;
    return new TutelageError("failed_precondition", message, { reason, cause: thrown });
  }
  return undefined;
}

/** Any thrown value as a TutelageError; what was not foreseen becomes "internal". */
export function asTutelageError(thrown: unknown): TutelageError {
  if (thrown instanceof TutelageError) return thrown;
  const fault = diskFault(thrown);
  if (fault !== undefined) return fault;
  return new TutelageError("internal", "Something went wrong on our side. The log has the details.", {
    cause: thrown,
  });
}
