/** A shell that runs the commands of one document, one after the other, as a reader would type them. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";

export interface CommandEnd {
  code: number;
  /** Standard output and standard error. */
  output: string;
}

export interface Shell {
  run(command: string, timeoutMs: number): Promise<CommandEnd>;
  stop(): Promise<void>;
}

/**
 * Variables carry over from one command to the next. Standard input is empty.
 * @param scratch a folder for the shell's own files, which the commands do not see
 */
export function openShell(cwd: string, scratch: string, environment: NodeJS.ProcessEnv): Shell {
  // A group of its own, so that what a command leaves behind ends with it.
  const child = spawn("bash", ["--noprofile", "--norc", "-o", "pipefail"], {
    cwd,
    env: environment,
    detached: true,
    stdio: ["pipe", "ignore", "ignore", "pipe"],
  });
  const exited = once(child, "exit");
  const ends = createInterface({ input: child.stdio[3] as Readable })[Symbol.asyncIterator]();
  const kill = (signal: NodeJS.Signals) => {
    try {
      if (child.pid !== undefined) process.kill(-child.pid, signal);
    } catch {
      // It has ended.
    }
  };
  return {
    async run(command, timeoutMs) {
      const file = join(scratch, "command.sh");
      const out = join(scratch, "output.txt");
      await writeFile(file, `${command}\n`);
      await writeFile(out, "");
      child.stdin?.write(`source '${file}' > '${out}' 2>&1 < /dev/null; echo $? >&3\n`);
      const timer = new AbortController();
      const ended = await Promise.race([
        ends.next().then(({ value }) => (value === undefined ? "it ended the shell" : Number(value))),
        sleep(timeoutMs, `it did not end within ${timeoutMs / 1_000} s`, { signal: timer.signal }),
      ]);
      timer.abort();
      const output = await readFile(out, "utf8");
      if (typeof ended === "number") return { code: ended, output };
      kill("SIGKILL");
      return { code: -1, output: `${output}\n(${ended})` };
    },
    async stop() {
      kill("SIGTERM");
      if (child.exitCode === null && child.signalCode === null) {
        kill("SIGKILL");
        await exited;
      }
    },
  };
}
