/** What a campaign uses of its budget, and what that leaves. */
import { type Settings, Switch } from "@tutelage/proto/campaigns/v1/campaigns";
import type { BudgetNotice } from "@tutelage/proto/run/v1/budget";
import { type GenerationBudget, Usage } from "@tutelage/proto/teacher/v1/teacher";
import type { Campaign } from "./campaign.js";
import { passedMarks, type Used } from "./shortfall.js";

/** What may be used in all; 0 for no cap. */
export type Caps = Pick<Settings, "maxTeacherCalls" | "maxTeacherTokens" | "maxCostMicroUsd" | "maxTrainingSeconds">;

const noUsage = Usage.fromPartial({});

/** Follows one campaign: what its steps used, what its caps are, and which marks it has told of. */
export class Spending {
  private usage: Usage = noUsage;
  /** What a fork's parent paid for what they share. */
  private sharedUsage: Usage = noUsage;
  /** The part of it that the ancestor paid whose iterations the loop passes. */
  private ancestorUsage: Usage = noUsage;
  private sharedTrainingSeconds = 0;
  private trainingSeconds = 0;
  private readonly running = new Map<string, Running>();
  caps: Caps;
  /** A generation run met the wall: what is left does not pay for another call, though it may not be nothing. */
  private walled = false;
  private concludes = false;
  private readonly countedSteps = new Set<string>();
  private readonly usageByStep = new Map<string, Usage>();
  private readonly toldMarks = new Set<string>();

  constructor(private readonly campaign: Campaign) {
    const { maxTeacherCalls, maxTeacherTokens = 0, maxCostMicroUsd, maxTrainingSeconds = 0 } = campaign.settings;
    this.caps = { maxTeacherCalls, maxTeacherTokens, maxCostMicroUsd, maxTrainingSeconds };
  }

  /** Adds what the teacher used in a step, once, however often the loop passes there and whether it was done now or before. */
  async addUsage(step: string, usage: Usage | undefined): Promise<void> {
    if (usage === undefined || this.countedSteps.has(step)) return;
    this.countedSteps.add(step);
    this.usageByStep.set(step, usage);
    this.running.delete(step);
    if (this.campaign.isShared(step)) {
      this.sharedUsage = sumOf(this.sharedUsage, usage);
      this.ancestorUsage = sumOf(this.ancestorUsage, usage);
      await this.campaign.lease.report({}, { sharedUsage: this.sharedUsage });
      return;
    }
    this.usage = sumOf(this.usage, usage);
    await this.campaign.lease.report({}, { usage: this.usage });
    await this.tellMarks();
  }

  /** What the teacher used in the steps whose names begin so; undefined where it was not asked. */
  usageOf(prefix: string): Usage | undefined {
    const usages = [...this.usageByStep].filter(([step]) => step.startsWith(prefix)).map(([, usage]) => usage);
    return usages.length === 0 ? undefined : usages.reduce(sumOf);
  }

  /** Adds the seconds that a training took, once, as with usage. */
  async addTraining(step: string, seconds: number): Promise<void> {
    if (this.countedSteps.has(step)) return;
    this.countedSteps.add(step);
    this.running.delete(step);
    if (this.campaign.isShared(step)) {
      this.sharedTrainingSeconds += seconds;
      await this.campaign.lease.report({}, { sharedTrainingSeconds: this.sharedTrainingSeconds });
      return;
    }
    this.trainingSeconds += seconds;
    await this.campaign.lease.report({}, { trainingSeconds: this.trainingSeconds });
    await this.tellMarks();
  }

  /** Says that another campaign of the line did the iterations that follow. */
  nextAncestor(): void {
    this.ancestorUsage = noUsage;
  }

  /** At a cap it ends with what it has, instead of stopping whole. Campaigns of earlier releases did. */
  get finishesAtBudget(): boolean {
    return this.concludes || this.campaign.settings.finishAtBudget !== Switch.OFF;
  }

  /** From here on a cap keeps the campaign from nothing but comparisons, for which it does not rest. */
  conclude(): void {
    this.concludes = true;
  }

  /**
   * Reads the caps, which may be raised while the campaign runs, and keeps to
   * them until the next call. A step where it orders only what they pay for:
   * what is ordered then depends on them, and must come out the same when the
   * loop runs again.
   */
  async fixCaps(name: string): Promise<void> {
    if (!this.finishesAtBudget) {
      await this.readCaps();
      return;
    }
    const before = JSON.stringify(this.caps);
    // A step of an earlier release has not all of them.
    this.caps = { ...noCaps, ...(await this.campaign.step(name, () => this.campaign.store.caps(this.campaign.key))) };
    if (JSON.stringify(this.caps) !== before) this.walled = false;
  }

  /** The caps as they are now. */
  async readCaps(): Promise<void> {
    this.caps = await this.campaign.store.caps(this.campaign.key);
  }

  /** What a generation run may use at most; no bound where there is no cap. */
  get budgetLeft(): GenerationBudget {
    const { maxTeacherCalls, maxTeacherTokens, maxCostMicroUsd } = this.caps;
    // What is shared was ordered by what that campaign had left: its own parent's calls did not count there.
    const used = this.campaign.isInSharedIteration ? sumOf(this.usage, this.ancestorUsage) : this.usage;
    return {
      calls: leftOf(maxTeacherCalls, used.calls),
      tokens: leftOf(maxTeacherTokens, used.promptTokens + used.completionTokens),
      costMicroUsd: leftOf(maxCostMicroUsd, used.costMicroUsd),
      rests: !this.finishesAtBudget,
    };
  }

  /** The same as it is now, for a run that goes on. Undefined where the caps are fixed for the iteration. */
  async budgetNow(): Promise<GenerationBudget | undefined> {
    if (this.finishesAtBudget) return undefined;
    await this.readCaps();
    return this.budgetLeft;
  }

  /** Whether there is a cap on the seconds of training. */
  get boundsTraining(): boolean {
    return this.caps.maxTrainingSeconds !== 0;
  }

  /** Seconds that a training may take. */
  async trainingSecondsLeft(): Promise<number | undefined> {
    const { maxTrainingSeconds } = await this.campaign.store.caps(this.campaign.key);
    // Unset would leave a run that goes on the bound that it had.
    return leftOf(maxTrainingSeconds, this.trainingSeconds) ?? Number.MAX_SAFE_INTEGER;
  }

  /** A run that might use all that was left could not pay for another call. Nothing more is ordered, unless a cap is raised. */
  meetWall(): void {
    this.walled = true;
  }

  /** Teacher calls that may be ordered: where a cap stops the campaign whole, it does not shape what is ordered. */
  get callsLeft(): number {
    if (!this.finishesAtBudget) return Number.MAX_SAFE_INTEGER;
    const { calls, tokens, costMicroUsd } = this.budgetLeft;
    if (this.walled || costMicroUsd === 0 || tokens === 0) return 0;
    return calls ?? Number.MAX_SAFE_INTEGER;
  }

  /** What it has used, with what the runs that it waits for have, by the names of the caps. */
  get used(): Used {
    const runs = [...this.running.values()];
    const running = (name: keyof Running) => runs.reduce((sum, run) => sum + (run[name] ?? 0), 0);
    const { calls, promptTokens, completionTokens, costMicroUsd } = this.usage;
    return {
      teacher_calls: calls + running("calls"),
      teacher_tokens: promptTokens + completionTokens + running("promptTokens") + running("completionTokens"),
      cost_micro_usd: costMicroUsd + running("costMicroUsd"),
      training_seconds: this.trainingSeconds + running("trainingSeconds"),
    };
  }

  /**
   * Notes what the run of a step has used so far, and tells, once for each
   * cap, that half, four fifths, or nearly all of it are used.
   * @param notices the same of the project's month: the run that passed the mark knows
   */
  async noteRunning(step: string, running: Running, notices: readonly BudgetNotice[] = []): Promise<void> {
    this.running.set(step, running);
    await this.tellMarks();
    for (const { name, month, percent, used, cap } of notices) {
      const key = `project/${month}/${name}/${percent}/${cap}`;
      await this.tellMark({ scope: "project", name, month, percent, used, cap }, key);
    }
  }

  private async tellMarks(): Promise<void> {
    for (const mark of passedMarks(this.caps, this.used)) {
      await this.tellMark({ scope: "campaign", ...mark }, `${mark.name}/${mark.percent}/${mark.cap}`);
    }
  }

  private async tellMark(payload: object, key: string): Promise<void> {
    if (this.toldMarks.has(key)) return;
    this.toldMarks.add(key);
    await this.campaign.emit("budget.threshold", payload, `/${key}`);
  }
}

/** What a run under way has used so far. */
type Running = Partial<Usage> & { trainingSeconds?: number };

const noCaps: Caps = { maxTeacherCalls: 0, maxTeacherTokens: 0, maxCostMicroUsd: 0, maxTrainingSeconds: 0 };

function sumOf(a: Usage, b: Usage): Usage {
  const sum = { ...a };
  for (const name of Object.keys(noUsage) as (keyof Usage)[]) sum[name] += b[name] ?? 0;
  return sum;
}

function leftOf(cap: number, used: number): number | undefined {
  return cap === 0 ? undefined : Math.max(0, cap - used);
}

/** What a run may use when so much of what is left is kept for another. */
export function budgetBeside(left: GenerationBudget, kept: Partial<GenerationBudget>): GenerationBudget {
  const beside = (all: number | undefined, part: number | undefined) =>
    all === undefined ? undefined : Math.max(0, all - (part ?? 0));
  return {
    calls: beside(left.calls, kept.calls),
    tokens: beside(left.tokens, kept.tokens),
    costMicroUsd: beside(left.costMicroUsd, kept.costMicroUsd),
    rests: left.rests,
  };
}

/** Half of it, rounded up. */
export function halfOf({ calls, tokens, costMicroUsd, rests }: GenerationBudget): GenerationBudget {
  const half = (all: number | undefined) => (all === undefined ? undefined : Math.ceil(all / 2));
  return { calls: half(calls), tokens: half(tokens), costMicroUsd: half(costMicroUsd), rests };
}
