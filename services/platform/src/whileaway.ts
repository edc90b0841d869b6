/** Repeating what a Postgres that is away kept from happening. */
import { setTimeout as sleep } from "node:timers/promises";
import { isDatabaseAway } from "./database.js";

const lookMs = 200;

/**
 * Repeats an attempt while Postgres is away, until the signal aborts; then
 * throws its error. Only for what may be done twice, as a commit whose answer
 * was lost is done again.
 * @param mayRepeat false once it may not be
 */
export async function onceThere<Result>(
  signal: AbortSignal,
  attempt: () => Promise<Result>,
  mayRepeat: () => boolean = () => true,
): Promise<Result> {
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (!isDatabaseAway(error) || !mayRepeat()) throw error;
      await sleep(lookMs, undefined, { signal }).catch(() => {});
      if (signal.aborted) throw error;
    }
  }
}
