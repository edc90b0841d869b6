/** How long a worker that shuts down waits for a handler, before it hands the run over without it. */

/** A handler stops at its signal; one that is deep in something is not waited for: its late writes are refused. */
const defaultDrainMs = 1_500;

/** The handler's result. Throws when it is still at work `drainMs` after the shutdown began. */
export async function untilDrained<Result>(
  handling: Promise<Result>,
  shutdown: AbortSignal,
  drainMs = defaultDrainMs,
): Promise<Result> {
  let timer: NodeJS.Timeout | undefined;
  let drain = () => {};
  const overdue = new Promise<never>((_, reject) => {
    drain = () => {
      timer = setTimeout(() => reject(new Error("The handler did not stop in time.")), drainMs);
    };
  });
  if (shutdown.aborted) drain();
  else shutdown.addEventListener("abort", drain, { once: true });
  try {
    return await Promise.race([handling, overdue]);
  } finally {
    shutdown.removeEventListener("abort", drain);
    clearTimeout(timer);
    handling.catch(() => {});
  }
}
