/** Makes one call: looks for the reply that was already paid for, asks, retries, and keeps the ledger. */
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { Database } from "@tutelage/platform/database";
import type { Logger } from "@tutelage/platform/log";
import { MonthBudgetMet } from "@tutelage/platform/monthbudget";
import { type Outcome, rejection, storable } from "@tutelage/platform/teacheroutcome";
import type { Budget, Spending } from "./budget.js";
import { type CallIdentity, callDigest, seedOf, sharedSeedOf } from "./digest.js";
import type { TeacherProfileSettings } from "./profile.js";
import { anyUnderWay, dropReservation, type NewReservation, putReservation } from "./reservations.js";
import { retryDelayMs } from "./retry.js";
import type { GenerationLease, NewCall, Store } from "./store.js";
import { type Ask, type CallMark, type Reply, type Teacher, TeacherFailure } from "./teacher.js";
import { costMicroUsd, tokenBounds } from "./usage.js";
import type { Made, Weather } from "./weather.js";

/** A teacher with what its calls meet and those that are under way. */
export interface ProfiledTeacher {
  profile: TeacherProfileSettings;
  teacher: Teacher;
  weather: Weather;
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

/**
 * What an attempt came to: a result is stored, of a call or of a reply that was
 * there; the teacher gave none; or nothing more can be paid.
 */
export type Settled = "answered" | "reused" | "over_budget" | TeacherFailure;

/** A call that another process makes is looked for as often. */
const sameCallLookMs = 200;
/**
 * A provider that is away is waited for, whatever it says. But where it answers
 * one call so often with an error and no other call is there to tell the two
 * apart, the call is to blame. At one probe a minute that is a quarter of an hour.
 */
const mostRefusals = 20;
/** Between two looks at whether the project's month has room again. */
const monthPollMs = 300;

export class Caller {
  constructor(
    private readonly store: Store,
    private readonly database: Database,
    private readonly log: Logger,
    private readonly random: () => number = Math.random,
  ) {}

  /**
   * Settles one attempt: its result is stored when this returns, unless the
   * budget has not enough left for its next try. The failure is returned when
   * the teacher gave no reply. Throws a fatal TeacherFailure, TeacherAway, and
   * the signal's reason when `begin` aborts before there is a result.
   */
  async settle(
    lease: GenerationLease,
    { profile, teacher, weather, underWay }: ProfiledTeacher,
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
      // A run that an earlier release stored has none.
      scope: lease.run.request.replyScope ?? "",
    };
    const digest = callDigest(identity);
    const mark = { digest, seed: profile.provider === "embedded" ? seedOf(digest) : sharedSeedOf(identity) };
    const key = `${projectId} ${digest}`;
    for (let same = underWay.get(key); same !== undefined; same = underWay.get(key)) {
      await same.catch(() => {});
      signals.begin.throwIfAborted();
    }
    const settling = this.settleDigest(lease, { profile, teacher, weather }, attempt, mark, budget, signals);
    underWay.set(key, settling);
    try {
      return await settling;
    } finally {
      underWay.delete(key);
    }
  }

  private async settleDigest(
    lease: GenerationLease,
    { profile, teacher, weather }: Omit<ProfiledTeacher, "underWay">,
    attempt: Attempt,
    mark: CallMark,
    budget: Budget,
    signals: CallSignals,
  ): Promise<Settled> {
    if (await this.reuse(lease, attempt, mark)) return "reused";
    await signals.hold();
    const reserved = this.reservation(lease, profile, attempt.ask, mark.digest);
    const most = spendingOf(reserved);
    const tryNow = lease.run.request.tryNow ?? false;
    let firstFailureAtMs: number | undefined;
    let refusedInRow = 0;
    for (let retry = 0; ; ) {
      if (!(await budget.reserve(most, signals.begin))) return "over_budget";
      const callId = randomUUID();
      let call: NewCall | undefined;
      let made: Made | undefined;
      let monthMet: MonthBudgetMet | undefined;
      try {
        made = await weather.run(
          signals.begin,
          { runId: lease.run.id, fence: lease.fence },
          kindOf(attempt.ask),
          async () => {
            if (!(await putReservation(lease, { ...reserved, callId }))) return undefined;
            if (signals.begin.aborted) {
              await dropReservation(this.database, reserved.projectId, callId);
              throw signals.begin.reason;
            }
            return await this.call(teacher, attempt.ask, mark, signals.end);
          },
          tryNow,
        );
        if (made !== undefined) {
          call = this.entry(profile, { ...reserved, callId }, made);
          // The ledger says what happened, whoever holds the run by now: a reply that is paid for is never dropped.
          await this.store.keep(call);
        }
      } catch (error) {
        if (!(error instanceof MonthBudgetMet)) throw error;
        monthMet = error;
      } finally {
        budget.settle(most, call && spendingOf(call));
      }
      if (monthMet !== undefined) {
        // As within a run: what is under way, in whatever process, may turn out cheaper than what is set aside for it.
        if (await anyUnderWay(this.database, reserved.projectId)) {
          await sleep(monthPollMs, undefined, { signal: signals.begin });
        } else budget.monthMet(monthMet);
        continue;
      }
      if (made === undefined || call === undefined) {
        if (await this.reuse(lease, attempt, mark)) return "reused";
        await sleep(sameCallLookMs, undefined, { signal: signals.begin });
        continue;
      }
      const place = { position: attempt.position, attempt: attempt.number, rowId: attempt.rowId };
      if ("answer" in made) {
        const outcome = attempt.read(made.answer.reply);
        await this.store.record(lease, { ...place, callId: call.id, reused: false, outcome });
        return "answered";
      }
      const { failure } = made;
      firstFailureAtMs ??= Date.now();
      this.log.warn({ runId: lease.run.id, code: failure.code, retry, profile: profile.name }, "teacher call failed");
      const hasEnough = failure.code === "teacher_rate_limited";
      // Being asked to wait is no failure of the call, nor is silence while nobody is answered: an outage costs no row,
      // however few tries a profile allows. How often such a call is made is bounded by the breaker.
      const counts = tryNow || (!hasEnough && (!isSilence(failure) || weather.answeredSince(firstFailureAtMs)));
      const isLast = failure.fatal || !failure.retryable || (counts && retry >= profile.max_retries);
      const away = failure.retryable && !tryNow ? await weather.away() : undefined;
      if (away !== undefined) {
        const refusals = await this.store.refusals(reserved.projectId, lease.run.id, mark.digest);
        if (refusals < mostRefusals) throw away;
      }
      if ((isLast || away !== undefined) && !failure.fatal && !signals.end.aborted) {
        const outcome = rejection("provider_error", `${failure.code}: ${failure.message}`, failure.raw);
        await this.store.record(lease, { ...place, callId: call.id, reused: false, outcome });
        return failure;
      }
      signals.begin.throwIfAborted();
      if (isLast) throw failure;
      if (hasEnough && !tryNow) refusedInRow += 1;
      else retry += 1;
      // Where the provider said how long, all calls to it are held back for that time.
      if (hasEnough && failure.retryAfterMs !== undefined && weather.hasProvider && !tryNow) continue;
      const delayMs = retryDelayMs(retry + refusedInRow, failure.retryAfterMs, this.random);
      await sleep(delayMs, undefined, { signal: signals.begin });
    }
  }

  /** Takes the reply that this call already got, if there is one. */
  private async reuse(lease: GenerationLease, attempt: Attempt, { digest }: CallMark): Promise<boolean> {
    const stored = await this.store.answered(lease.run.projectId, digest);
    if (stored === undefined) return false;
    return await this.store.record(lease, {
      position: attempt.position,
      attempt: attempt.number,
      rowId: attempt.rowId,
      callId: stored.callId,
      // Not what an earlier holder of this run paid for and did not come to use.
      reused: stored.runId !== lease.run.id,
      outcome: attempt.read(stored.reply),
    });
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

/** What a call counts for in its run's budget. */
function spendingOf({
  promptTokens,
  completionTokens,
  costMicroUsd,
}: Pick<NewReservation, "promptTokens" | "completionTokens" | "costMicroUsd">): Spending {
  return { calls: 1, tokens: promptTokens + completionTokens, costMicroUsd };
}

function pricesOf({ prices }: TeacherProfileSettings) {
  return {
    promptMicroUsdPerMillionTokens: prices.prompt_micro_usd_per_million_tokens,
    completionMicroUsdPerMillionTokens: prices.completion_micro_usd_per_million_tokens,
  };
}

/** Whether the provider said nothing, or only that it cannot answer. */
function isSilence({ code }: TeacherFailure): boolean {
  return code === "teacher_unavailable" || code === "teacher_timeout";
}

/** Calls that should take equally long: those that may write as much. */
function kindOf(ask: Ask): string {
  return ask.kind === "score" ? ask.kind : `${ask.kind}/${ask.sampling.maxTokens}`;
}

/** The prompt as sent: text, or messages and score items as JSON. */
function promptText(ask: Ask): string {
  if (ask.kind === "completion") return ask.prompt;
  return JSON.stringify(ask.kind === "chat" ? ask.messages : ask.items);
}
