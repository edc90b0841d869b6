/** Makes one call: looks for the reply that was already paid for, asks, retries, and keeps the ledger. */
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "@tutelage/platform/log";
import type { Budget } from "./budget.js";
import { type CallIdentity, callDigest, seedOf, sharedSeedOf } from "./digest.js";
import type { Gate } from "./gate.js";
import { type Outcome, rejection, storable } from "./outcome.js";
import type { TeacherProfileSettings } from "./profile.js";
import { type NewReservation, putReservation } from "./reservations.js";
import { retryDelayMs } from "./retry.js";
import type { GenerationLease, NewCall, Store } from "./store.js";
import { type Answer, type Ask, type CallMark, type Reply, type Teacher, TeacherFailure } from "./teacher.js";
import { costMicroUsd, tokenBounds } from "./usage.js";

/** A teacher with the bound on its calls and the calls that are under way. */
export interface ProfiledTeacher {
  profile: TeacherProfileSettings;
  teacher: Teacher;
  gate: Gate;
  /** Digests of calls under way in this process: the same call waits instead of being paid twice. */
  underWay: Map<string, Promise<unknown>>;
}

export interface Attempt {
  position: number;
  rowId: string;
  number: number;
  ask: Ask;
  read(reply: Reply): Outcome;
}

/** When calls of a run may begin, and when they must end. */
export interface CallSignals {
  /** Aborts when no new call may begin: cancelled, failed, lease lost, shutting down. */
  begin: AbortSignal;
  /** Aborts when calls under way must be given up: at once when cancelled, after a grace when shutting down. */
  end: AbortSignal;
  /** Resolves when the accelerator is ours. */
  hold(): Promise<void>;
}

/** What an attempt came to: its result is stored, the teacher gave no reply, or nothing more can be paid. */
export type Settled = "stored" | "over_budget" | TeacherFailure;

/** What one try came to. */
type Made = { durationMs: number } & ({ answer: Answer } | { failure: TeacherFailure });

export class Caller {
  constructor(
    private readonly store: Store,
    private readonly log: Logger,
    private readonly random: () => number = Math.random,
  ) {}

  /**
   * Settles one attempt: its result is stored when this returns, unless the
   * budget has not enough left for its next try. The failure is returned when
   * the teacher gave no reply. Throws a fatal TeacherFailure, and the signal's
   * reason when `begin` aborts before there is a result.
   */
  async settle(
    lease: GenerationLease,
    { profile, teacher, gate, underWay }: ProfiledTeacher,
    attempt: Attempt,
    budget: Budget,
    signals: CallSignals,
  ): Promise<Settled> {
    const { projectId } = lease.run;
    const identity: CallIdentity = {
      projectId,
      provider: profile.provider === "embedded" ? "embedded" : `openai-compatible ${profile.base_url}`,
      model: await teacher.identify(),
      ask: attempt.ask,
      attempt: attempt.number,
      replicateSeed: lease.run.request.replicateSeed,
    };
    const digest = callDigest(identity);
    const mark = { digest, seed: profile.provider === "embedded" ? seedOf(digest) : sharedSeedOf(identity) };
    const key = `${projectId} ${digest}`;
    for (let same = underWay.get(key); same !== undefined; same = underWay.get(key)) {
      await same.catch(() => {});
      signals.begin.throwIfAborted();
    }
    const settling = this.settleDigest(lease, { profile, teacher, gate }, attempt, mark, budget, signals);
    underWay.set(key, settling);
    try {
      return await settling;
    } finally {
      underWay.delete(key);
    }
  }

  private async settleDigest(
    lease: GenerationLease,
    { profile, teacher, gate }: Omit<ProfiledTeacher, "underWay">,
    attempt: Attempt,
    mark: CallMark,
    budget: Budget,
    signals: CallSignals,
  ): Promise<Settled> {
    const place = { position: attempt.position, attempt: attempt.number, rowId: attempt.rowId };
    const stored = await this.store.answered(lease.run.projectId, mark.digest);
    if (stored !== undefined) {
      const outcome = attempt.read(stored.reply);
      if (await this.store.record(lease, { ...place, callId: stored.callId, reused: true, outcome })) return "stored";
    }
    await signals.hold();
    const reserved = this.reservation(lease, profile, attempt.ask, mark.digest);
    for (let retry = 0; ; retry += 1) {
      if (!(await budget.reserve(reserved.costMicroUsd, signals.begin))) return "over_budget";
      const callId = randomUUID();
      let call: NewCall | undefined;
      let made: Made;
      try {
        made = await gate.run(signals.begin, async () => {
          await putReservation(lease, { ...reserved, callId });
          if (signals.begin.aborted) {
            await this.store.dropReservation(reserved.projectId, callId);
            throw signals.begin.reason;
          }
          return await this.call(teacher, attempt.ask, mark, signals.end);
        });
        call = this.entry(profile, { ...reserved, callId }, made);
        // The ledger says what happened, whoever holds the run by now: a reply that is paid for is never dropped.
        await this.store.keep(call);
      } finally {
        budget.settle(reserved.costMicroUsd, call?.costMicroUsd);
      }
      if ("answer" in made) {
        const outcome = attempt.read(made.answer.reply);
        await this.store.record(lease, { ...place, callId: call.id, reused: false, outcome });
        return "stored";
      }
      const { failure } = made;
      this.log.warn({ runId: lease.run.id, code: failure.code, retry, profile: profile.name }, "teacher call failed");
      const isLast = failure.fatal || !failure.retryable || retry === profile.max_retries;
      if (isLast && !failure.fatal && !signals.end.aborted) {
        const outcome = rejection("provider_error", `${failure.code}: ${failure.message}`, failure.raw);
        await this.store.record(lease, { ...place, callId: call.id, reused: false, outcome });
        return failure;
      }
      signals.begin.throwIfAborted();
      if (isLast) throw failure;
      if (failure.code === "teacher_rate_limited" && failure.retryAfterMs !== undefined) {
        gate.pause(retryDelayMs(retry + 1, failure.retryAfterMs, this.random));
      } else {
        await sleep(retryDelayMs(retry + 1, failure.retryAfterMs, this.random), undefined, { signal: signals.begin });
      }
    }
  }

  private async call(teacher: Teacher, ask: Ask, mark: CallMark, signal: AbortSignal): Promise<Made> {
    const began = performance.now();
    const elapsed = () => Math.round(performance.now() - began);
    try {
      const answer = await teacher.ask(ask, mark, signal);
      return { durationMs: elapsed(), answer };
    } catch (error) {
      if (!(error instanceof TeacherFailure)) throw error;
      return { durationMs: elapsed(), failure: error };
    }
  }

  /** What is set aside for each try. */
  private reservation(
    lease: GenerationLease,
    profile: TeacherProfileSettings,
    ask: Ask,
    digest: string,
  ): Omit<NewReservation, "callId"> {
    const bounds = tokenBounds(ask);
    return {
      projectId: lease.run.projectId,
      runId: lease.run.id,
      requestDigest: digest,
      teacherProfile: profile.name,
      model: profile.model,
      prompt: storable(promptText(ask)),
      ...bounds,
      costMicroUsd: costMicroUsd(bounds, pricesOf(profile)),
    };
  }

  /** The call's line in the ledger. */
  private entry(profile: TeacherProfileSettings, { callId, ...reserved }: NewReservation, made: Made): NewCall {
    const tokens =
      "answer" in made
        ? { promptTokens: made.answer.reply.promptTokens, completionTokens: made.answer.reply.completionTokens }
        : // What came of it is unknown, so the most that it can have cost counts.
          made.failure.maybeBilled
          ? { promptTokens: reserved.promptTokens, completionTokens: reserved.completionTokens }
          : { promptTokens: 0, completionTokens: 0 };
    return {
      ...reserved,
      id: callId,
      ...tokens,
      costMicroUsd: costMicroUsd(tokens, pricesOf(profile)),
      durationMs: made.durationMs,
      finishedAt: new Date(),
      ...("answer" in made
        ? { status: "answered" as const, errorCode: "", rawReply: made.answer.raw, reply: made.answer.reply }
        : {
            status: "failed" as const,
            errorCode: made.failure.code,
            rawReply: storable(made.failure.raw),
            reply: null,
          }),
    };
  }
}

function pricesOf({ prices }: TeacherProfileSettings) {
  return {
    promptMicroUsdPerMillionTokens: prices.prompt_micro_usd_per_million_tokens,
    completionMicroUsdPerMillionTokens: prices.completion_micro_usd_per_million_tokens,
  };
}

/** The prompt as sent: text, or messages and score items as JSON. */
function promptText(ask: Ask): string {
  if (ask.kind === "completion") return ask.prompt;
  return JSON.stringify(ask.kind === "chat" ? ask.messages : ask.items);
}
