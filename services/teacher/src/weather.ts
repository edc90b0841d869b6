/**
 * What calls to one teacher profile meet, and how this process answers it: as
 * many calls at once as the provider takes, none while it is away, and then one
 * to see whether it is back. The breaker is one for all replicas (Postgres); the
 * number of calls is each replica's own.
 */
import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import type { Logger } from "@tutelage/platform/log";
import { storable } from "@tutelage/platform/teacheroutcome";
import { type Breaker, probeDelayMs, Strikes } from "./breaker.js";
import { Concurrency } from "./concurrency.js";
import { Gate } from "./gate.js";
import type { TeacherProfileSettings } from "./profile.js";
import { retryDelayMs } from "./retry.js";
import type { Answer, TeacherFailure } from "./teacher.js";
import type { Holder, WeatherStore } from "./weatherstore.js";

/** Other replicas learn within this time that one of them found the provider away. */
const viewMs = 500;
/** A provider that asks for a longer pause is away: runs wait for it in their queue, not in a worker. */
const longestPauseMs = 10_000;
const reportMs = 1_000;
const whileTriedMs = 1_000;
/** A call ends within its profile's timeout_ms, and what came of it is stored within this time. */
const graceMs = 5_000;
const mostReasonCharacters = 500;
const replica = `${hostname()}/${process.pid}/${randomUUID().slice(0, 8)}`;

/** What one try came to. */
export type Made = { durationMs: number } & ({ answer: Answer } | { failure: TeacherFailure });

/** Why a call may be made: the provider answers; to see whether it does again; because somebody wants to know now. */
type Turn = "usual" | "probe" | "now";

/** Thrown instead of making a call: the provider is away. */
export class TeacherAway extends Error {
  constructor(
    readonly profile: string,
    readonly breaker: Breaker,
  ) {
    super(`Teacher "${profile}" does not answer: ${breaker.reason}`);
  }

  /** Until it is worth asking again: a provider that is being tried may answer any moment. */
  get retryInMs(): number {
    if (this.breaker.state === "half_open") return whileTriedMs;
    return Math.max(0, (this.breaker.probeAt?.getTime() ?? 0) - Date.now());
  }
}

export class Weather {
  private readonly concurrency: Concurrency;
  private readonly strikes: Strikes;
  private readonly gate: Gate;
  private seen: { breaker: Breaker; atMs: number } | undefined;
  private probing: Promise<unknown> | undefined;
  private reportedAtMs = 0;
  private answeredBeganAtMs = Number.NEGATIVE_INFINITY;

  constructor(
    private readonly profile: TeacherProfileSettings,
    private readonly store: WeatherStore,
    private readonly log: Logger,
    private readonly random: () => number = Math.random,
  ) {
    this.concurrency = new Concurrency(profile.max_concurrency);
    this.strikes = new Strikes(profile.provider === "embedded" ? 1 : profile.breaker.failures);
    this.gate = new Gate(() => this.concurrency.limit);
  }

  /** Whether somebody else's machine answers. A model in a process of ours is not away: it works or is broken. */
  get hasProvider(): boolean {
    return this.profile.provider !== "embedded";
  }

  /**
   * Makes a call when it may be made; undefined from `work` says that it was
   * not sent. Throws TeacherAway, and the signal's reason.
   * @param kind calls that should take equally long
   * @param tryNow whether it is made though the provider is away
   */
  async run<Result extends Made | undefined>(
    signal: AbortSignal,
    holder: Holder,
    kind: string,
    work: () => Promise<Result>,
    tryNow = false,
  ): Promise<Result> {
    return await this.gate.run(signal, async () => {
      if (!this.hasProvider) return await work();
      const turn = tryNow ? "now" : await this.admit(signal, holder);
      const making = this.make(kind, turn, work);
      if (turn !== "probe") return await making;
      this.probing = making.catch(() => {});
      try {
        return await making;
      } finally {
        this.probing = undefined;
      }
    });
  }

  private async make<Result extends Made | undefined>(
    kind: string,
    turn: Turn,
    work: () => Promise<Result>,
  ): Promise<Result> {
    const beganAtMs = Date.now();
    let made: Made | undefined;
    try {
      const result = await work();
      made = result;
      return result;
    } finally {
      // What the weather is must not cost a reply that is paid for.
      await this.saw(kind, beganAtMs, made, turn).catch((error: unknown) =>
        this.log.warn({ err: error, profile: this.profile.name }, "cannot store the teacher's weather"),
      );
    }
  }

  /**
   * Whether a call that began after then was answered, anybody's in this process:
   * if so, what fails now is not for want of a provider. When a call was answered
   * says less: a slow reply may come after the provider died.
   */
  answeredSince(atMs: number): boolean {
    return !this.hasProvider || this.answeredBeganAtMs > atMs;
  }

  /** The provider's absence, if it was last seen away. */
  async away(): Promise<TeacherAway | undefined> {
    if (!this.hasProvider) return undefined;
    const breaker = await this.breaker();
    return breaker.state === "closed" ? undefined : new TeacherAway(this.profile.name, breaker);
  }

  /** Resolves when a call may be made. */
  private async admit(signal: AbortSignal, holder: Holder): Promise<Turn> {
    for (;;) {
      signal.throwIfAborted();
      const away = await this.away();
      if (away === undefined) return "usual";
      if (this.probing === undefined) {
        if (away.breaker.state === "open" && away.retryInMs > 0) throw away;
        const withinMs = this.profile.timeout_ms + graceMs;
        const isOurs = await this.store.takeProbe(this.profile.name, holder, withinMs);
        this.seen = undefined;
        if (isOurs) return "probe";
        if (away.breaker.state === "half_open") throw away;
        continue;
      }
      await this.probing;
      this.seen = undefined;
    }
  }

  private async breaker(): Promise<Breaker> {
    if (this.seen === undefined || Date.now() - this.seen.atMs > viewMs) {
      this.seen = { breaker: await this.store.breaker(this.profile.name), atMs: Date.now() };
    }
    return this.seen.breaker;
  }

  private async saw(kind: string, beganAtMs: number, made: Made | undefined, turn: Turn): Promise<void> {
    const isProbe = turn === "probe";
    const failure = made !== undefined && "failure" in made ? made.failure : undefined;
    const isUnknown = made === undefined || failure?.code === "call_stopped";
    if (isUnknown) {
      if (isProbe) await this.store.dropProbe(this.profile.name);
    } else if (failure?.retryable) await this.sawFailure(failure, beganAtMs, isProbe);
    else {
      // A request that it refuses is an answer, too.
      this.strikes.answered();
      this.answeredBeganAtMs = Math.max(this.answeredBeganAtMs, beganAtMs);
      if (failure === undefined) this.concurrency.answered(kind, made.durationMs);
      if (turn !== "usual" && (await this.store.close(this.profile.name))) {
        this.concurrency.restart();
        this.log.info({ profile: this.profile.name }, "the teacher answers again");
      }
    }
    if (turn !== "usual") this.seen = undefined;
    await this.report();
  }

  private async sawFailure(failure: TeacherFailure, beganAtMs: number, isProbe: boolean): Promise<void> {
    if (this.profile.provider === "embedded") return;
    const now = Date.now();
    const { retryAfterMs } = failure;
    const hasEnough = failure.code === "teacher_rate_limited";
    if (hasEnough || failure.code === "teacher_timeout") this.concurrency.refused(beganAtMs, now);
    const isLongPause = (retryAfterMs ?? 0) > longestPauseMs;
    if (hasEnough && retryAfterMs !== undefined && !isLongPause) {
      this.gate.pause(retryDelayMs(1, retryAfterMs, this.random));
    }
    const isLastStrike = this.strikes.failed(beganAtMs, now);
    if (!isProbe && !isLastStrike && !isLongPause) return;
    const { name, breaker: settings } = this.profile;
    const before = isProbe ? (await this.store.breaker(name)).failedProbes + 1 : 0;
    const why = {
      code: failure.code,
      reason: storable(failure.message.slice(0, mostReasonCharacters)),
      probeInMs: probeDelayMs(settings, before, retryAfterMs),
    };
    this.seen = undefined;
    if (isProbe) await this.store.reopen(name, why);
    else if (await this.store.open(name, why)) {
      this.log.warn({ profile: name, code: failure.code }, "the teacher does not answer; its runs wait");
    }
  }

  /** At most once a second, and not waited for by whoever calls next. */
  private async report(): Promise<void> {
    if (Date.now() - this.reportedAtMs < reportMs) return;
    this.reportedAtMs = Date.now();
    const { limit } = this.concurrency;
    await this.store.report(this.profile.name, { replica, concurrency: limit, underWay: this.gate.underWay });
  }
}
