/** A child process that is kept running: started again when it dies, with its output in a log file. */
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, existsSync, openSync, renameSync, statSync } from "node:fs";
import { open } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";

export interface ChildPlan {
  name: string;
  command: string;
  args: string[];
  env: NodeJS.ProcessEnv;
  logFile: string;
  /** Whether it does its work; asked until it says so, and now and then afterwards. */
  isHealthy: () => Promise<boolean>;
  /** How long it may take to stop before it is killed. */
  stopMs: number;
  /**
   * Looks in a row, 0.5 s apart, without health after which one that had been healthy is killed, to be started again.
   * Without it a sick child is left alone: one that waits for a database is not helped by a kill.
   */
  replaceAfterLooks?: number;
}

export type ChildEvent =
  | { type: "started"; name: string; pid: number }
  | { type: "healthy"; name: string; seconds: number }
  | { type: "unhealthy"; name: string }
  | { type: "replaced"; name: string }
  | { type: "exited"; name: string; how: string; restartInMs: number }
  | { type: "stopped"; name: string };

const firstBackoffMs = 250;
const longestBackoffMs = 10_000;
/**
 * A child that served and lived this long starts again without a wait: it can start, so what ended it came from
 * outside, and its work waits.
 */
const steadyMs = 5_000;
const healthEveryMs = 5_000;
const maxLogBytes = 20 * 1024 * 1024;
/** A child that cannot even start is not tried for ever while somebody waits for it. */
const startAttempts = 3;
/** EX_CONFIG: a variable is wrong, and stays so. */
const configurationError = 78;

export class Child {
  private process: ChildProcess | undefined;
  private exited: Promise<void> = Promise.resolve();
  private stopping = false;
  private failures = 0;
  private lastExit = "";
  private hopeless = false;
  private isHealthy = false;
  /** Looks in a row that found a process ill that had been healthy. */
  private looksSick = 0;
  private hasServed = false;
  private wake: (() => void) | undefined;

  constructor(
    readonly plan: ChildPlan,
    private readonly onEvent: (event: ChildEvent) => void,
  ) {}

  get pid(): number | undefined {
    return this.process?.pid;
  }

  start(): void {
    rotate(this.plan.logFile);
    const log = openSync(this.plan.logFile, "a", 0o600);
    const startedAt = Date.now();
    const { name, command, args, env } = this.plan;
    // Detached: Ctrl-C in a terminal reaches the parent alone, which stops its children in order. The channel (and, for
    // the student, standard input) closes with the parent, so that a child knows when it is an orphan.
    const child = spawn(command, args, { env, stdio: ["pipe", log, log, "ipc"], detached: true });
    closeSync(log);
    this.process = child;
    child.stdin?.on("error", () => {});
    this.exited = new Promise((done) => {
      const end = (how: string, code: number | null) => {
        if (this.process !== child) return;
        const wasSteady = this.hasServed && Date.now() - startedAt > steadyMs;
        this.process = undefined;
        this.isHealthy = false;
        this.hasServed = false;
        this.looksSick = 0;
        this.lastExit = how;
        this.hopeless = code === configurationError;
        this.failures = wasSteady ? 0 : this.failures + 1;
        done();
        if (!this.stopping) void this.again(how);
      };
      child.once("error", (error) => end(`cannot be started: ${error.message}`, null));
      child.once("exit", (code, signal) => end(signal === null ? `exit code ${code}` : `signal ${signal}`, code));
    });
    if (child.pid !== undefined) this.onEvent({ type: "started", name, pid: child.pid });
  }

  /** Waits until it is healthy for the first time. Throws with the end of its log when it cannot start. */
  async healthy(timeoutMs: number, signal: AbortSignal): Promise<void> {
    const began = Date.now();
    while (!(this.process !== undefined && (await this.plan.isHealthy()))) {
      signal.throwIfAborted();
      const late = Date.now() - began > timeoutMs;
      if (late || this.hopeless || this.failures >= startAttempts) {
        const why = late ? `is not ready after ${timeoutMs / 1000} s` : `does not start (${this.lastExit})`;
        throw new Error(`${this.plan.name} ${why}. End of ${this.plan.logFile}:\n${await tail(this.plan.logFile)}`);
      }
      await sleep(100);
    }
    this.isHealthy = true;
    this.hasServed = true;
    this.onEvent({ type: "healthy", name: this.plan.name, seconds: (Date.now() - began) / 1000 });
  }

  /** Tells when its health changes, until the signal aborts; ends a child that stays sick, where its plan says so. */
  async watchHealth(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await sleep(this.isHealthy ? healthEveryMs : 500, undefined, { signal }).catch(() => {});
      if (signal.aborted || this.stopping || this.process === undefined) continue;
      const looked = this.process;
      const now = await this.plan.isHealthy();
      if (signal.aborted || this.stopping || this.process !== looked) continue;
      const { name, replaceAfterLooks = Number.POSITIVE_INFINITY } = this.plan;
      this.hasServed ||= now;
      this.looksSick = now || !this.hasServed ? 0 : this.looksSick + 1;
      if (this.looksSick >= replaceAfterLooks) {
        this.looksSick = 0;
        this.onEvent({ type: "replaced", name });
        // Nothing less ends a process that is stopped or hangs.
        looked.kill("SIGKILL");
        continue;
      }
      if (now === this.isHealthy) continue;
      this.isHealthy = now;
      this.onEvent(now ? { type: "healthy", name, seconds: 0 } : { type: "unhealthy", name });
    }
  }

  /** Asks it to stop, kills it when it does not. */
  async stop(): Promise<void> {
    this.stopping = true;
    this.wake?.();
    await this.end();
    this.onEvent({ type: "stopped", name: this.plan.name });
  }

  /** Stops it and starts it again, for new code. */
  async restart(): Promise<void> {
    this.stopping = true;
    this.wake?.();
    await this.end();
    this.stopping = false;
    this.failures = 0;
    this.start();
  }

  private async end(): Promise<void> {
    const child = this.process;
    if (child === undefined) return;
    child.kill("SIGTERM");
    const kill = setTimeout(() => child.kill("SIGKILL"), this.plan.stopMs);
    await this.exited;
    clearTimeout(kill);
  }

  private async again(how: string): Promise<void> {
    const restartInMs =
      this.failures === 0 ? 0 : Math.min(longestBackoffMs, firstBackoffMs * 2 ** Math.min(10, this.failures - 1));
    this.onEvent({ type: "exited", name: this.plan.name, how, restartInMs });
    await new Promise<void>((done) => {
      const timer = setTimeout(done, restartInMs);
      this.wake = () => {
        clearTimeout(timer);
        done();
      };
    });
    this.wake = undefined;
    if (!this.stopping && this.process === undefined) this.start();
  }
}

/** Keeps one old log beside the new one. */
function rotate(logFile: string): void {
  if (existsSync(logFile) && statSync(logFile).size > maxLogBytes) renameSync(logFile, `${logFile}.1`);
}

/** The last lines of a file. */
export async function tail(path: string, bytes = 3_000): Promise<string> {
  const file = await open(path, "r").catch(() => undefined);
  if (file === undefined) return "";
  try {
    const { size } = await file.stat();
    const start = Math.max(0, size - bytes);
    const { buffer, bytesRead } = await file.read(Buffer.alloc(Math.min(size, bytes)), 0, Math.min(size, bytes), start);
    return buffer.toString("utf8", 0, bytesRead).trimEnd();
  } finally {
    await file.close();
  }
}
