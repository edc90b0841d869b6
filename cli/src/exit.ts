/** How a command ends: one code for each kind of end, documented in --help. */

/** Exit codes; those above 63 are the ones of sysexits.h. */
export const exitCodes = {
  ok: 0,
  /** The campaign failed or was cancelled, or the check of `doctor` found something missing. */
  failed: 1,
  /** A wrong option or argument. */
  usage: 64,
  /** The server refused what it was given; the message says what and how to mend it. */
  refused: 65,
  /** A file cannot be read. */
  noInput: 66,
  /** Nobody answers at the server's address. */
  unavailable: 69,
  /** Ctrl-C. A campaign goes on. */
  interrupted: 130,
} as const;

/** An end that the user is told about in a line or two, without a stack. */
export class Stop extends Error {
  constructor(
    message: string,
    readonly code: number,
  ) {
    super(message);
  }
}
