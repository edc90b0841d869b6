/** Teachers on this machine: a GGUF model in a child process that is started when asked and ended when idle. */
import { type ChildProcess, fork } from "node:child_process";
import { createRequire } from "node:module";
import { availableParallelism } from "node:os";
import type { Logger } from "@tutelage/platform/log";
import { storable } from "@tutelage/platform/teacheroutcome";
import { type ModelFile, resolveModelFile } from "../modelfile.js";
import type { EmbeddedProfile } from "../profile.js";
import { type Answer, type Ask, type CallMark, type Teacher, TeacherFailure } from "../teacher.js";
import type { ChildOptions, ChildReply, ChildRequest } from "./embedded-protocol.js";

/** Loading takes under two seconds; a campaign's next question mostly comes within a minute. */
const idleMs = 60_000;
const startMs = 60_000;

type RequestBody = ChildRequest extends infer Each ? (Each extends { id: number } ? Omit<Each, "id"> : never) : never;

interface Child {
  process: ChildProcess;
  ready: Promise<void>;
  inFlight: Map<number, { resolve: (reply: ChildReply) => void; reject: (failure: TeacherFailure) => void }>;
}

export class EmbeddedTeacher implements Teacher {
  private file: Promise<ModelFile> | undefined;
  private child: Child | undefined;
  private idleTimer: NodeJS.Timeout | undefined;
  private nextId = 1;
  private closed = false;
  private noticeShown = false;

  constructor(
    private readonly profile: EmbeddedProfile,
    private readonly place: { home: string; python: string },
    private readonly log: Logger,
  ) {}

  async identify(): Promise<string> {
    return (await this.modelFile()).sha256;
  }

  async ask(ask: Ask, { seed }: CallMark, signal: AbortSignal): Promise<Answer> {
    if (ask.kind === "chat") throw new Error("An embedded teacher is not asked in chat form.");
    const body: RequestBody =
      ask.kind === "score"
        ? { kind: "score", items: ask.items }
        : {
            kind: "complete",
            prompt: ask.prompt,
            stop: ask.stop,
            maxTokens: ask.sampling.maxTokens,
            temperature: ask.sampling.temperature,
            topP: ask.sampling.topP,
            topK: ask.sampling.topK,
            seed,
          };
    const reply = await this.exchange(body, signal);
    if (reply.kind === "completed") {
      const { finish, promptTokens, completionTokens } = reply;
      const text = storable(reply.text);
      return { raw: text, reply: { text, finish, promptTokens, completionTokens } };
    }
    if (reply.kind === "scored") {
      const { scores, referenceScores, promptTokens } = reply;
      const text = JSON.stringify({ scores, referenceScores });
      return {
        raw: text,
        reply: { text, finish: "stop", promptTokens, completionTokens: 0, scores, referenceScores },
      };
    }
    if (reply.kind === "too_long") throw new TeacherFailure("teacher_prompt_too_long", reply.message);
    throw new TeacherFailure("teacher_model_failed", "The embedded teacher could not answer.", {
      retryable: true,
      raw: reply.kind === "failed" ? reply.message : "",
    });
  }

  async close(): Promise<void> {
    this.closed = true;
    await this.end();
  }

  private modelFile(): Promise<ModelFile> {
    this.file ??= resolveModelFile(this.profile.model, this.place.home, this.place.python).catch((error: unknown) => {
      // Asked again next time: the operator may have installed it by then.
      this.file = undefined;
      throw error;
    });
    return this.file;
  }

  private async exchange(body: RequestBody, signal: AbortSignal): Promise<ChildReply> {
    const child = await this.running();
    const deadline = AbortSignal.timeout(this.profile.timeout_ms);
    const stopped = AbortSignal.any([signal, deadline]);
    const id = this.nextId++;
    clearTimeout(this.idleTimer);
    try {
      return await new Promise<ChildReply>((resolve, reject) => {
        child.inFlight.set(id, { resolve, reject });
        const onStop = () => {
          child.process.send({ id, kind: "stop" } satisfies ChildRequest, () => {});
          reject(
            signal.aborted
              ? new TeacherFailure("call_stopped", "The call was stopped before its reply came.")
              : new TeacherFailure("teacher_timeout", `No answer within ${this.profile.timeout_ms} ms.`, {
                  retryable: true,
                }),
          );
        };
        if (stopped.aborted) onStop();
        else stopped.addEventListener("abort", onStop, { once: true });
        // A channel that is gone rejects through the exit handler.
        child.process.send({ id, ...body } as ChildRequest, () => {});
      });
    } finally {
      child.inFlight.delete(id);
      if (child.inFlight.size === 0) this.endWhenIdle();
    }
  }

  private async running(): Promise<Child> {
    if (this.closed) throw new TeacherFailure("call_stopped", "The teacher is stopping.");
    const file = await this.modelFile();
    const child = this.child ?? this.start(file);
    await child.ready;
    return child;
  }

  private start(file: ModelFile): Child {
    if (file.notice !== "" && !this.noticeShown) {
      this.noticeShown = true;
      this.log.info({ model: this.profile.model, notice: file.notice }, "model notice");
    }
    const childOptions: ChildOptions = {
      modelPath: file.path,
      sequences: this.profile.max_concurrency,
      contextTokens: this.profile.context_tokens,
      threads: this.profile.threads === 0 ? availableParallelism() : this.profile.threads,
    };
    // The compiled file also when this one runs from its source under a test runner.
    const script = createRequire(import.meta.url).resolve("@tutelage/teacher/providers/embedded-child");
    const process_ = fork(script, [JSON.stringify(childOptions)], {
      stdio: ["ignore", "ignore", "pipe", "ipc"],
      execArgv: [],
      // It needs no secret of ours.
      env: { PATH: process.env.PATH, HOME: process.env.HOME, LANG: process.env.LANG },
    });
    const inFlight: Child["inFlight"] = new Map();
    let said = "";
    process_.stderr?.on("data", (chunk: Buffer) => {
      said = (said + chunk.toString("utf8")).slice(-2_000);
    });
    const ready = new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => process_.kill("SIGKILL"), startMs);
      process_.on("message", (reply: ChildReply) => {
        if (reply.kind === "ready") {
          clearTimeout(timer);
          resolve();
        } else inFlight.get(reply.id)?.resolve(reply);
      });
      const onEnd = (why: string) => {
        clearTimeout(timer);
        if (this.child === child) this.child = undefined;
        // The file itself may be the reason; it is looked for, and made where it is missing, before the next start.
        this.file = undefined;
        const failure = new TeacherFailure("teacher_process_died", `The embedded teacher's process ended (${why}).`, {
          retryable: true,
        });
        if (inFlight.size > 0) this.log.warn({ why, calls: inFlight.size, said }, "embedded teacher died");
        for (const { reject: rejectCall } of inFlight.values()) rejectCall(failure);
        reject(failure);
      };
      process_.on("exit", (code, signalName) => onEnd(signalName ?? `exit code ${code}`));
      process_.on("error", (error) => onEnd(error.message));
    });
    // Whoever waits for it hears of a failure; when nobody does, it is no unhandled rejection.
    ready.catch(() => {});
    const child: Child = { process: process_, ready, inFlight };
    this.child = child;
    return child;
  }

  private endWhenIdle(): void {
    clearTimeout(this.idleTimer);
    this.idleTimer = setTimeout(() => void this.end(), idleMs);
    this.idleTimer.unref();
  }

  private async end(): Promise<void> {
    clearTimeout(this.idleTimer);
    const child = this.child;
    this.child = undefined;
    if (child === undefined || child.process.exitCode !== null || child.process.signalCode !== null) return;
    await new Promise<void>((resolve) => {
      child.process.once("exit", () => resolve());
      // It holds nothing that is worth a farewell.
      child.process.kill("SIGKILL");
    });
  }
}
