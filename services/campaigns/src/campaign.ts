/** A campaign at work: what it was asked, whom it asks, and the steps it has behind it. */
import type { ArtifactStore } from "@tutelage/platform/artifacts";
import type { Transaction } from "@tutelage/platform/database";
import type { Lease } from "@tutelage/platform/runs";
import {
  type Outcome,
  type Settings,
  type Shortfall,
  type StartCampaignRequest,
  Switch,
} from "@tutelage/proto/campaigns/v1/campaigns";
import type { Version } from "@tutelage/proto/datasets/v1/datasets";
import type { BudgetNotice } from "@tutelage/proto/run/v1/budget";
import type { Recipe } from "@tutelage/proto/student/v1/student";
import { type Row, type RowSource, Split, Task } from "@tutelage/proto/task/v1/task";
import type { GenerationBudget, Usage } from "@tutelage/proto/teacher/v1/teacher";
import type { ChildRun, Services, Waiting } from "./clients.js";
import type { EventType } from "./events.js";
import { type Fork, settingsAt } from "./fork.js";
import { passedMarks, type Used } from "./shortfall.js";
import type { CampaignKey, CampaignStore } from "./store.js";
import { type StoredTeacherWait, TeacherAbsence } from "./teacherabsence.js";

/** What a campaign's run row keeps beside its status. */
export interface CampaignState {
  iteration: number;
  phase: string;
  usage: Usage;
  datasetId: string;
  /** Seconds that students were trained, of finished steps. */
  trainingSeconds: number;
  /** What a fork's parent paid for what they share. */
  sharedUsage: Usage;
  sharedTrainingSeconds: number;
  /** What its budget lacked when it last rested for want of it. */
  shortfalls: Shortfall[];
  outcome: Outcome;
  /** The run of another service that it waits for, or waited for last. */
  child: ChildRun;
  /** Times that it was tried again after a failure. */
  retries: number;
  /** The run that it waited for when it failed, to be tried again first. */
  retryOf: ChildRun | null;
  /** The hold on its dataset's version has no end any more; false when that version was gone. */
  versionHeld: boolean;
  /** The checkpoints that its outcome does not name are removed. */
  checkpointsSwept: boolean;
  /** What somebody wrote down about it. */
  note: string;
  tags: string[];
  /** Set while it waits for a teacher that does not answer; times as ISO 8601. */
  teacherWait: StoredTeacherWait | null;
}

/** What may be used in all; 0 for no cap. */
export type Caps = Pick<Settings, "maxTeacherCalls" | "maxTeacherTokens" | "maxCostMicroUsd" | "maxTrainingSeconds">;

/** A request whose task and settings are resolved, the recipe too. */
export interface ResolvedRequest extends StartCampaignRequest {
  task: Task;
  settings: Settings & { recipe: Recipe };
  /** Of a campaign that goes on from another one. */
  fork?: Fork;
}

export type CampaignLease = Lease<ResolvedRequest, CampaignState>;

const noUsage: Usage = {
  calls: 0,
  reusedCalls: 0,
  promptTokens: 0,
  completionTokens: 0,
  costMicroUsd: 0,
  teacherSeconds: 0,
  savedMicroUsd: 0,
};

/**
 * The loop's view of the world. Everything with an effect goes through
 * `step`: after a restart the loop runs again from its first line, finds the
 * steps that were done, and goes on from the first that was not.
 */
export class Campaign {
  readonly key: CampaignKey;
  readonly task: Task;
  usage: Usage = noUsage;
  /** What a fork's parent paid for what they share. */
  private sharedUsage: Usage = noUsage;
  private sharedTrainingSeconds = 0;
  /** The dataset that holds this campaign's versions. */
  datasetId = "";
  trainingSeconds = 0;
  private running: Running = {};
  caps: Caps;
  /** A generation run met the wall: what is left does not pay for another call, though it may not be nothing. */
  private walled = false;
  private readonly secondsByStep = new Map<string, number>();
  private readonly sharedSteps = new Set<string>();
  private readonly countedSteps = new Set<string>();
  private current = 0;
  private readonly toldMarks = new Set<string>();
  private lastReportAt = 0;
  /** What comes of it when the teacher does not answer. */
  readonly teacherAbsence: TeacherAbsence;

  constructor(
    readonly lease: CampaignLease,
    readonly services: Services,
    readonly artifacts: ArtifactStore,
    readonly store: CampaignStore,
  ) {
    this.key = { projectId: lease.run.projectId, campaignId: lease.run.id };
    // A run that an earlier release stored lacks the fields that the contract gained since.
    this.task = Task.fromPartial(lease.run.request.task);
    const { maxTeacherCalls, maxTeacherTokens = 0, maxCostMicroUsd, maxTrainingSeconds = 0 } = this.settings;
    this.caps = { maxTeacherCalls, maxTeacherTokens, maxCostMicroUsd, maxTrainingSeconds };
    this.teacherAbsence = new TeacherAbsence(lease, services, store);
  }

  /** Those of the iteration that the loop is in: what a fork shares was done under its parent's. */
  get settings(): ResolvedRequest["settings"] {
    return settingsAt(this.request, this.current);
  }

  /** The settings with which the campaign began. */
  get firstSettings(): ResolvedRequest["settings"] {
    return settingsAt(this.request, 0);
  }

  /** Says in which iteration the loop is. */
  at(iteration: number): void {
    this.current = iteration;
  }

  get request(): ResolvedRequest {
    return this.lease.run.request;
  }

  /** Times that it was tried again after a failure. */
  get retries(): number {
    return (this.request.fork?.retries ?? 0) + (this.lease.run.state.retries ?? 0);
  }

  get signal(): AbortSignal {
    return this.lease.signal;
  }

  get projectId(): string {
    return this.key.projectId;
  }

  /** Idempotency key of a child run: the campaign and the step that starts it. */
  childKey(step: string): string {
    return `${this.key.campaignId}/${step}`;
  }

  /**
   * Does a piece of work once. Its output is stored in the same fenced
   * transaction as `effects`; a second call with the same name returns it.
   */
  async step<Output>(
    name: string,
    work: () => Promise<Output>,
    effects?: (transaction: Transaction, output: Output) => Promise<void>,
  ): Promise<Output> {
    const done = await this.store.step(this.key, name);
    if (done !== undefined) {
      this.secondsByStep.set(name, done.seconds);
      if (done.shared) this.sharedSteps.add(name);
      return done.output as Output;
    }
    const startedAt = performance.now();
    const output = await work();
    const seconds = (performance.now() - startedAt) / 1000;
    await this.lease.advance(async (transaction) => {
      await this.store.putStep(transaction, this.key, { name, output: output ?? null, seconds });
      await effects?.(transaction, output);
    });
    this.secondsByStep.set(name, seconds);
    return output;
  }

  /** Seconds of all steps that are its own. */
  get wallSeconds(): number {
    let seconds = 0;
    for (const [name, own] of this.secondsByStep) if (!this.sharedSteps.has(name)) seconds += own;
    return seconds;
  }

  /** Seconds of all steps whose name begins so. */
  secondsOf(prefix: string): number {
    let seconds = 0;
    for (const [name, own] of this.secondsByStep) if (name.startsWith(prefix)) seconds += own;
    return seconds;
  }

  /**
   * Stores an event once, however often the loop passes here.
   * @param again tells it from the same event of an earlier try
   */
  async emit(type: EventType, payload: object, again = ""): Promise<void> {
    const detail = "iteration" in payload ? `/${payload.iteration}` : "";
    const phase = "phase" in payload ? `/${payload.phase}` : "";
    await this.step(
      `event/${type}${detail}${phase}${again}`,
      async () => null,
      (transaction) => this.store.putEvent(transaction, this.key, type, payload),
    );
  }

  /** Says what the campaign does now. */
  async enter(iteration: number, phase: string): Promise<void> {
    await this.lease.report(
      {
        done: Math.min(iteration, this.settings.iterations),
        total: this.settings.iterations,
        unit: "iterations",
        message: phase,
        etaSeconds: this.etaSeconds(iteration),
      },
      { iteration, phase },
    );
    await this.emit("phase.started", { iteration, phase });
  }

  /** Roughly: every iteration that is left, and plain fine-tuning, as long as the mean so far. 0 before there is one. */
  private etaSeconds(iteration: number): number {
    if (iteration === 0) return 0;
    const seconds = Array.from({ length: iteration + 1 }, (_, number) => this.secondsOf(`iteration/${number}/`));
    const current = seconds.pop() ?? 0;
    const mean = seconds.reduce((a, b) => a + b, 0) / seconds.length;
    return Math.max(1, Math.round(mean * (this.settings.iterations - iteration + 1) - current));
  }

  /** Which stored replies the campaign may use: those of the whole project, or its own. */
  get replyScope(): string {
    return this.settings.reuseReplies === Switch.OFF ? (this.request.fork?.root ?? this.key.campaignId) : "";
  }

  /** Waits for a child run: passes its progress on, at most twice a second, and remembers it for a cancel. */
  waitingFor(what: string): Waiting<never> {
    return {
      signal: this.signal,
      onStarted: async (child) => await this.lease.report({}, { child }),
      onTeacherWait: async (wait) => await this.teacherAbsence.note(wait),
      onProgress: async (run) => {
        if (performance.now() - this.lastReportAt < 500) return;
        this.lastReportAt = performance.now();
        const { done = 0, total = 0, unit = "", etaSeconds = 0 } = run.progress ?? {};
        const count = total > 0 ? ` ${done}/${total} ${unit}` : "";
        const eta = etaSeconds > 0 ? `, ${Math.ceil(etaSeconds)} s left` : "";
        await this.lease.report({ message: `${what}:${count}${eta}` });
      },
    };
  }

  /** Adds what the teacher used in a step, once, however often the loop passes there and whether it was done now or before. */
  async addUsage(step: string, usage: Usage | undefined): Promise<void> {
    if (usage === undefined || this.countedSteps.has(step)) return;
    this.countedSteps.add(step);
    if (this.sharedSteps.has(step)) {
      this.sharedUsage = sumOf(this.sharedUsage, usage);
      await this.lease.report({}, { sharedUsage: this.sharedUsage });
      return;
    }
    this.usage = sumOf(this.usage, usage);
    await this.lease.report({}, { usage: this.usage });
    await this.noteRunning({});
  }

  /** Adds the seconds that a training took, once, as with usage. */
  async addTraining(step: string, seconds: number): Promise<void> {
    if (this.countedSteps.has(step)) return;
    this.countedSteps.add(step);
    if (this.sharedSteps.has(step)) {
      this.sharedTrainingSeconds += seconds;
      await this.lease.report({}, { sharedTrainingSeconds: this.sharedTrainingSeconds });
      return;
    }
    this.trainingSeconds += seconds;
    await this.lease.report({}, { trainingSeconds: this.trainingSeconds });
    await this.noteRunning({});
  }

  /** At a cap it ends with what it has, instead of stopping whole. Campaigns of earlier releases did. */
  get finishesAtBudget(): boolean {
    return this.settings.finishAtBudget !== Switch.OFF;
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
    this.caps = { ...noCaps, ...(await this.step(name, () => this.store.caps(this.key))) };
    if (JSON.stringify(this.caps) !== before) this.walled = false;
  }

  /** The caps as they are now. */
  async readCaps(): Promise<void> {
    this.caps = await this.store.caps(this.key);
  }

  /** What a generation run may use at most; no bound where there is no cap. */
  get budgetLeft(): GenerationBudget {
    const { maxTeacherCalls, maxTeacherTokens, maxCostMicroUsd } = this.caps;
    // What is shared was ordered by what its parent had left.
    const isShared = this.current < (this.request.fork?.iteration ?? 0);
    const used = isShared ? sumOf(this.usage, this.sharedUsage) : this.usage;
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

  /** Seconds that a training may take. */
  async trainingSecondsLeft(): Promise<number | undefined> {
    const { maxTrainingSeconds } = await this.store.caps(this.key);
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

  /** What it has used, with what the run that it waits for has, by the names of the caps. */
  get used(): Used {
    const { running } = this;
    const { calls, promptTokens, completionTokens, costMicroUsd } = this.usage;
    return {
      teacher_calls: calls + (running.calls ?? 0),
      teacher_tokens: promptTokens + completionTokens + (running.promptTokens ?? 0) + (running.completionTokens ?? 0),
      cost_micro_usd: costMicroUsd + (running.costMicroUsd ?? 0),
      training_seconds: this.trainingSeconds + (running.trainingSeconds ?? 0),
    };
  }

  /** Notes what the run has used that it waits for. */
  async noteRunning(running: Running): Promise<void> {
    this.running = running;
    await this.tellMarks();
  }

  /** Tells, once for each cap, that half, four fifths, or nearly all of it are used. */
  private async tellMarks(): Promise<void> {
    for (const mark of passedMarks(this.caps, this.used)) {
      await this.tellMark({ scope: "campaign", ...mark }, `${mark.name}/${mark.percent}/${mark.cap}`);
    }
  }

  /** The same of the project's month: the run that passed the mark knows. */
  async tellNotices(notices: readonly BudgetNotice[]): Promise<void> {
    for (const { name, month, percent, used, cap } of notices) {
      const key = `project/${month}/${name}/${percent}/${cap}`;
      await this.tellMark({ scope: "project", name, month, percent, used, cap }, key);
    }
  }

  private async tellMark(payload: object, key: string): Promise<void> {
    if (this.toldMarks.has(key)) return;
    this.toldMarks.add(key);
    await this.emit("budget.threshold", payload, `/${key}`);
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

/** Name of the dataset that holds a campaign's versions. */
export function datasetName(campaignId: string): string {
  return `campaign-${campaignId}`;
}

/** Rows of a version as the other services are told of them. */
export function rowSource(version: Version, choice: Partial<RowSource> = {}): RowSource {
  return {
    uri: version.artifactUri,
    sha256: version.artifactSha256,
    split: Split.UNSPECIFIED,
    rowIds: [],
    excludeRootRowIds: [],
    ...choice,
  };
}

/** The user's rows, and the version they came in. */
export interface SeedData {
  version: Version;
  /** Split train: what the student learns from and is mined on. */
  seedRows: Row[];
  devRows: number;
  testRows: number;
  /** Dev and test inputs, normalised: no training row may say the same. */
  heldOutTexts: ReadonlySet<string>;
}
