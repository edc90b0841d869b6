/** Removes what tests of teacher profiles left behind whose gateway died, or could not delete them. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "@tutelage/platform/log";
import type { Backends } from "./backends.js";
import { projectId } from "./fields.js";

/** What the idempotency keys of the tests' generation runs begin with. */
export const profileTestPrefix = "profile-test/";
const pauseMs = 600_000;

/** Sweeps now and then until the function that it gives is called: tests that no gateway can be waiting for any more. */
export function sweepProfileTests(
  { teacher }: Pick<Backends, "teacher">,
  profileTestMs: number,
  log: Logger,
  everyMs = pauseMs,
): () => Promise<void> {
  const stop = new AbortController();
  const { signal } = stop;
  const sweeping = (async () => {
    while (!signal.aborted) {
      try {
        const createdBefore = new Date(Date.now() - 2 * profileTestMs);
        const { counts } = await teacher.deleteGenerationRuns(
          { projectId, keyPrefix: profileTestPrefix, createdBefore },
          { signal },
        );
        if (Object.keys(counts).length > 0) log.info({ counts }, "swept up what profile tests had left");
      } catch (error) {
        // The teacher may start after us; the next turn finds them.
        if (!signal.aborted) log.debug({ err: error }, "could not sweep up after profile tests");
      }
      await sleep(everyMs, undefined, { signal, ref: false }).catch(() => {});
    }
  })();
  return async () => {
    stop.abort();
    await sweeping;
  };
}
