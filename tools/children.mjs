/** Child processes of the tools: shown or kept in a log, and ended with us, by process id. */
import { spawn } from "node:child_process";
import { closeSync, mkdirSync, openSync, readFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { fileURLToPath } from "node:url";

export const root = resolve(dirname(fileURLToPath(import.meta.url)), "..");

/** A command that ended badly; `output` is the end of what it said. */
export class CommandFailed extends Error {
  constructor(message, output) {
    super(message);
    this.output = output;
  }
}

/** Running children, each with the signal that ends it gently. */
const running = new Set();
let interrupted = false;

for (const signal of ["SIGINT", "SIGTERM"]) {
  process.on(signal, () => {
    const again = interrupted;
    interrupted = true;
    if (running.size === 0) process.exit(130);
    // A terminal's Ctrl-C has reached them too; a second one of ours ends those that hang.
    for (const child of running) child.kill(again ? "SIGKILL" : "SIGTERM");
    setTimeout(() => {
      for (const child of running) child.kill("SIGKILL");
      process.exit(130);
    }, 8_000).unref();
  });
}

/**
 * Runs a command to its end and gives its exit code. With `logFile` its output
 * goes there, else to our own output.
 */
export async function run(command, args, { cwd = root, env = {}, logFile } = {}) {
  if (interrupted) process.exit(130);
  if (logFile !== undefined) mkdirSync(dirname(logFile), { recursive: true });
  const log = logFile === undefined ? "inherit" : openSync(logFile, "w");
  const child = spawn(command, args, { cwd, env: { ...process.env, ...env }, stdio: ["ignore", log, log] });
  running.add(child);
  try {
    return await new Promise((done, fail) => {
      child.on("error", fail);
      child.on("exit", (code, signal) => done(code ?? (signal === null ? 1 : 128)));
    });
  } finally {
    running.delete(child);
    if (logFile !== undefined) closeSync(log);
    if (interrupted && running.size === 0) process.exit(130);
  }
}

/** Like run, but quiet; throws CommandFailed with the end of the output unless the command succeeds. */
export async function must(command, args, options) {
  const code = await run(command, args, options).catch((error) => {
    throw new CommandFailed(`${command} cannot be run: ${error.message}`, "");
  });
  if (code !== 0) {
    const output = readFileSync(options.logFile, "utf8").trimEnd().split("\n").slice(-40).join("\n");
    throw new CommandFailed(`${command} ${args.slice(0, 3).join(" ")} ended with exit code ${code}`, output);
  }
}
