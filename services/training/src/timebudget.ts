/**
 * The wall of a training's seconds: its own and that of the project's month.
 * Time is set aside in slices before it passes, so that trainings on several
 * students cannot cross the project's cap together, each of the month in which
 * it is set aside; what a dead holder had set aside counts in full. Before the wall the student leaves a resume point,
 * so that the seconds up to it are not taken again.
 */
import type { Transaction } from "@tutelage/platform/database";
import { type BudgetNotice, chargeMonth, endOfMonth, MonthBudgetMet, monthOf } from "@tutelage/platform/monthbudget";
import { Rest } from "@tutelage/platform/rest";
import type { Lease } from "@tutelage/platform/runs";
import { noteCharge } from "./store.js";
import type { CheckedRequest, TrainingState } from "./trainingrun.js";

const sliceSeconds = 5;
const lookEveryMs = 100;
/** A slice is asked for this long before the last one ends: the database may take a while. */
const aheadSeconds = 2;
/** Others may want what is left of the month, and all that a dead holder set aside counts as used. */
const mostAheadSeconds = 30;
/** The student hears of the end this long before it: it still ends the step that it is in. */
const stopSeconds = 0.2;
/** Less is not worth a start: it would be over before it has begun. */
const leastSeconds = 0.3;
/** A resume point takes at least so long. */
const leastPointSeconds = 0.3;
/** The step at hand may take longer than the longest of late. */
const stepMargin = 1.25;
/** By this each shorter step or point makes the longest one shorter: a student that stood still is forgotten. */
const forgetting = 0.95;

interface Wall {
  scope: "run" | "project";
  /** Seconds, those set aside included. */
  used: number;
  cap: number;
  until?: Date;
}

export class TimeBudget {
  private readonly end = new AbortController();
  private readonly chargedBefore: number;
  private beganAt = 0;
  /** Seconds set aside by this holder, of each month. */
  private readonly grants = new Map<string, number>();
  private wall: Wall | undefined;
  private granting: Promise<void> | undefined;
  private pointAsked = false;
  private heardAt = 0;
  private readonly longest = { step: 0, point: leastPointSeconds };
  private timer: NodeJS.Timeout | undefined;

  /**
   * @param leavePoint has the student leave a resume point after the step at hand
   * @param now for tests
   */
  constructor(
    private readonly lease: Lease<CheckedRequest, TrainingState>,
    private readonly leavePoint: () => Promise<unknown>,
    private readonly now: () => Date = () => new Date(),
  ) {
    this.chargedBefore = lease.run.state.chargedSeconds ?? 0;
  }

  /** Aborts with a Rest when no time is left. */
  get over(): AbortSignal {
    return this.end.signal;
  }

  /** The student begins to work. Throws a Rest when there is no time for it. */
  async begin(): Promise<void> {
    this.beganAt = performance.now();
    this.heardAt = this.beganAt;
    await this.grant();
    if (this.wall !== undefined) throw this.rest(this.wall);
    this.timer = setInterval(() => void this.look(), lookEveryMs);
  }

  /** The student has ended a step or a resume point. Throws a Rest where that was the point to end with. */
  heard(what: "step" | "point"): void {
    const now = performance.now();
    this.longest[what] = Math.max((now - this.heardAt) / 1_000, forgetting * this.longest[what]);
    this.heardAt = now;
    if (what === "point" && this.pointAsked && this.wall !== undefined) throw this.rest(this.wall);
  }

  /** The student has ended: what was set aside and not used is given back, what it took beyond is counted. */
  async settle(): Promise<void> {
    clearInterval(this.timer);
    if (this.timer === undefined) return;
    await this.granting;
    const corrections = this.corrections();
    await this.lease
      .write((transaction) => this.charge(transaction, corrections, { beyondCaps: true }))
      // Of one who lost the lease, or the database, all that was set aside counts.
      .catch(() => {});
  }

  private get elapsed(): number {
    return (performance.now() - this.beganAt) / 1_000;
  }

  private get granted(): number {
    return [...this.grants.values()].reduce((sum, seconds) => sum + seconds, 0);
  }

  /** What the months are charged beyond what was set aside of them. What was not used is of the latest. */
  private corrections(): Map<string, number> {
    let unused = this.left;
    if (unused <= 0) return new Map([[monthOf(this.now()), -unused]]);
    const corrections = new Map<string, number>();
    for (const [month, seconds] of [...this.grants].reverse()) {
      const back = Math.min(unused, seconds);
      if (back > 0) corrections.set(month, -back);
      unused -= back;
    }
    return corrections;
  }

  private get left(): number {
    return this.granted - this.elapsed;
  }

  /** Seconds before the wall at which a resume point must be asked for to be there in time. */
  private get pointSeconds(): number {
    const step = Math.max(this.longest.step, (performance.now() - this.heardAt) / 1_000);
    return stepMargin * step + Math.max(this.longest.point, leastPointSeconds) + stopSeconds;
  }

  /** Seconds before the end of what is set aside at which more is: a student that is silent now does not make them more. */
  private get grantSeconds(): number {
    const { step, point } = this.longest;
    return Math.max(aheadSeconds, Math.min(mostAheadSeconds, 2 * (stepMargin * step + point + stopSeconds)));
  }

  private async look(): Promise<void> {
    const { left, pointSeconds } = this;
    if (this.wall !== undefined) {
      if (left < stopSeconds) this.end.abort(this.rest(this.wall));
      else if (!this.pointAsked && left < pointSeconds) {
        this.pointAsked = true;
        // Without one the training goes on from an earlier one; there may be time to ask again.
        await this.leavePoint().catch(() => {
          this.pointAsked = false;
        });
      }
      return;
    }
    if (this.granting !== undefined || left > this.grantSeconds) return;
    // A database that is away for a moment is asked again; a lost lease aborts the lease's own signal.
    this.granting = this.grant().catch(() => {});
    await this.granting;
    this.granting = undefined;
  }

  /** Sets another slice aside, or as much as there is, or learns that there is none. */
  private async grant(): Promise<void> {
    const { maxSeconds } = this.lease.run.request;
    const own = maxSeconds === undefined ? sliceSeconds : maxSeconds - this.chargedBefore - this.granted;
    if (own < leastSeconds) {
      this.wall = { scope: "run", used: this.chargedBefore + this.granted, cap: maxSeconds ?? 0 };
      return;
    }
    let seconds = Math.min(sliceSeconds, own);
    const month = monthOf(this.now());
    for (;;) {
      try {
        await this.lease.write((transaction) => this.charge(transaction, new Map([[month, seconds]])));
        this.grants.set(month, (this.grants.get(month) ?? 0) + seconds);
        return;
      } catch (error) {
        if (!(error instanceof MonthBudgetMet)) throw error;
        const { used, cap } = error.line;
        if (cap - used < leastSeconds) {
          this.wall = { scope: "project", used, cap, until: endOfMonth(month) };
          return;
        }
        seconds = Math.min(seconds, cap - used);
      }
    }
  }

  private async charge(
    transaction: Transaction,
    byMonth: ReadonlyMap<string, number>,
    options = { beyondCaps: false },
  ): Promise<void> {
    const { id: runId, projectId } = this.lease.run;
    let charged = this.chargedBefore + this.granted;
    const notices: BudgetNotice[] = [];
    for (const [month, seconds] of byMonth) {
      notices.push(...(await chargeMonth(transaction, projectId, month, { training_seconds: seconds }, options)));
      charged += seconds;
    }
    await noteCharge(transaction, { projectId, runId }, charged, notices);
  }

  private rest({ scope, used, cap, until }: Wall): Rest {
    const whose = scope === "run" ? "training" : "project this month";
    const seconds = (used - Math.max(0, this.left)).toFixed(1);
    return new Rest(
      "BUDGET_EXHAUSTED",
      `${scope}_training_seconds`,
      `The ${whose} has used ${seconds} of ${cap} seconds of training; what is left is too little to go on. Raise the cap.`,
      until,
    );
  }
}
