/** How a command ends: one code for each kind of end, documented in --help. */

/** Exit codes; those above 63 are the ones of sysexits.h. */
export const exitCodes = {
  ok: 0,
  /** The campaign failed or was cancelled, a check found something wrong, or an import left rows out. */
  failed: 1,
  /** A wrong option or argument. */
  usage: 64,
  /** Refused as it was given; the message says what and how to mend it. */
  refused: 65,
  /** A file cannot be read or written. */
  noInput: 66,
  /** Nobody answers at the server's address, not in time, or not to the end. */
  unavailable: 69,
  /** Ctrl-C. A campaign goes on. */
  interrupted: 130,
} as const;

/** A refusal as RFC 9457 has it. */
export interface Problem {
  type?: string;
  title?: string;
  status?: number;
  detail?: string;
  reason?: string;
  errors?: { field: string; message?: string; description?: string }[];
  [member: string]: unknown;
}

/** Reason and title of a Stop that names none itself, by its exit code. */
const ownProblems: Record<number, [reason: string, title: string]> = {
  [exitCodes.failed]: ["failed", "It failed"],
  [exitCodes.usage]: ["wrong_usage", "The command cannot be used like this"],
  [exitCodes.refused]: ["refused", "It was refused"],
  [exitCodes.noInput]: ["file_error", "A file cannot be read or written"],
  [exitCodes.unavailable]: ["unavailable", "The server does not answer"],
  [exitCodes.interrupted]: ["interrupted", "It was interrupted"],
};

/** An end that the user is told about in a line or two, without a stack. */
export class Stop extends Error {
  /** @param problem what the server sent, or what its document is to say beside the message */
  constructor(
    message: string,
    readonly code: number,
    readonly problem: Problem = {},
  ) {
    super(message);
  }
}

/** What --json prints for a Stop: the server's own document, or one of the same form. */
export function problemOf({ message, code, problem }: Stop): Problem {
  const [ownReason, title] = ownProblems[code] ?? ["internal", "Something went wrong"];
  const reason = problem.reason ?? ownReason;
  return { type: `urn:tutelage:problem:${reason}`, title, detail: message, reason, errors: [], ...problem };
}
