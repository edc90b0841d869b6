/** Whether a service can work, as its health says: it can while what it rests on answers. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "./log.js";

const lookMs = 1_000;
/** Longest that an answer may take; a database that is merely busy answers sooner. */
const answerMs = 5_000;

/**
 * Asks again and again until the signal aborts, and tells when the answer
 * changes; it begins with yes. Never throws.
 * @param ask throws when what the service rests on does not answer
 */
export async function watchReadiness(
  ask: () => Promise<unknown>,
  onChange: (ready: boolean) => void,
  log: Logger,
  signal: AbortSignal,
): Promise<void> {
  let wasReady = true;
  while (!signal.aborted) {
    let why: unknown;
    const ready = await answered(ask).catch((error: unknown) => {
      why = error;
      return false;
    });
    if (signal.aborted) return;
    if (ready !== wasReady) {
      wasReady = ready;
      if (ready) log.info("ready again");
      else log.warn({ err: why }, "not ready: the database does not answer");
      onChange(ready);
    }
    await sleep(lookMs, undefined, { signal }).catch(() => {});
  }
}

async function answered(ask: () => Promise<unknown>): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${answerMs} ms`)), answerMs);
  });
  try {
    await Promise.race([ask(), late]);
    return true;
  } finally {
    clearTimeout(timer);
  }
}
