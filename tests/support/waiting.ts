/** How a test waits: for a condition, or to let something go on. */
import { setTimeout as sleep } from "node:timers/promises";

/** Waits until the condition holds; throws after timeoutMs. */
export async function until(condition: () => boolean | Promise<boolean>, timeoutMs = 15_000): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`The condition did not come true within ${timeoutMs} ms.`);
    await sleep(20);
  }
}

/** Something waits at `pass` until the test opens the gate, or until its call ends. */
export function gate(): { open: () => void; pass: (signal: AbortSignal) => Promise<void> } {
  let open = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  const pass = (signal: AbortSignal) =>
    new Promise<void>((resolve, reject) => {
      const ended = () => reject(new DOMException("The call ended.", "AbortError"));
      if (signal.aborted) ended();
      signal.addEventListener("abort", ended);
      void opened.then(resolve);
    });
  return { open, pass };
}
