/** A campaign at work: what it was asked, whom it asks, and the steps it has behind it. */
import type { ArtifactStore } from "@tutelage/platform/artifacts";
import type { Transaction } from "@tutelage/platform/database";
import type { Lease } from "@tutelage/platform/runs";
import { type Outcome, type Settings, type StartCampaignRequest, Switch } from "@tutelage/proto/campaigns/v1/campaigns";
import type { Version } from "@tutelage/proto/datasets/v1/datasets";
import type { Recipe } from "@tutelage/proto/student/v1/student";
import { type Row, type RowSource, Split, Task } from "@tutelage/proto/task/v1/task";
import type { GenerationBudget, Usage } from "@tutelage/proto/teacher/v1/teacher";
import type { ChildRun, Services, Waiting } from "./clients.js";
import type { EventType } from "./events.js";
import type { CampaignKey, CampaignStore } from "./store.js";
import { type StoredTeacherWait, TeacherAbsence } from "./teacherabsence.js";

/** What a campaign's run row keeps beside its status. */
export interface CampaignState {
  iteration: number;
  phase: string;
  usage: Usage;
  datasetId: string;
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

/** What the teacher may be asked for in all; 0 for no cap. */
export type Caps = Pick<Settings, "maxTeacherCalls" | "maxCostMicroUsd">;

/** A request whose task and settings are resolved, the recipe too. */
export interface ResolvedRequest extends StartCampaignRequest {
  task: Task;
  settings: Settings & { recipe: Recipe };
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
  readonly settings: ResolvedRequest["settings"];
  usage: Usage = noUsage;
  /** The dataset that holds this campaign's versions. */
  datasetId = "";
  private caps: Caps;
  /** A generation run met the wall: what is left does not pay for another call, though it may not be nothing. */
  private walled = false;
  private readonly secondsByStep = new Map<string, number>();
  private readonly countedSteps = new Set<string>();
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
    this.settings = lease.run.request.settings;
    this.caps = this.settings;
    this.teacherAbsence = new TeacherAbsence(lease, services, store);
  }

  get request(): ResolvedRequest {
    return this.lease.run.request;
  }

  /** Times that it was tried again after a failure. */
  get retries(): number {
    return this.lease.run.state.retries ?? 0;
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
    return this.settings.reuseReplies === Switch.OFF ? this.key.campaignId : "";
  }

  /** Waits for a child run: passes its progress on, at most twice a second, and remembers it for a cancel. */
  waitingFor(what: string): Waiting {
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
    const sum = { ...this.usage };
    for (const name of Object.keys(noUsage) as (keyof Usage)[]) sum[name] += usage[name] ?? 0;
    this.usage = sum;
    await this.lease.report({}, { usage: sum });
  }

  /**
   * Reads the caps, which may be raised while the campaign runs, and keeps to
   * them until the next call. A step: what is ordered depends on them, and
   * must come out the same when the loop runs again.
   */
  async fixCaps(name: string): Promise<void> {
    const { maxTeacherCalls, maxCostMicroUsd } = this.caps;
    this.caps = await this.step(name, () => this.store.caps(this.key));
    if (this.caps.maxTeacherCalls !== maxTeacherCalls || this.caps.maxCostMicroUsd !== maxCostMicroUsd) {
      this.walled = false;
    }
  }

  /** What a generation run may use at most; no bound where there is no cap. */
  get budgetLeft(): GenerationBudget {
    const { maxTeacherCalls, maxCostMicroUsd } = this.caps;
    const left = (cap: number, used: number) => (cap === 0 ? undefined : Math.max(0, cap - used));
    return {
      calls: left(maxTeacherCalls, this.usage.calls),
      costMicroUsd: left(maxCostMicroUsd, this.usage.costMicroUsd),
    };
  }

  /** A run that might use all that was left could not pay for another call. Nothing more is ordered, unless a cap is raised. */
  meetWall(): void {
    this.walled = true;
  }

  /** Teacher calls that may still be made. */
  get callsLeft(): number {
    const { calls, costMicroUsd } = this.budgetLeft;
    if (this.walled || costMicroUsd === 0) return 0;
    return calls ?? Number.MAX_SAFE_INTEGER;
  }
}

/** What a run may use when so much of what is left is kept for another. */
export function budgetBeside(left: GenerationBudget, kept: GenerationBudget): GenerationBudget {
  const beside = (all: number | undefined, part: number | undefined) =>
    all === undefined ? undefined : Math.max(0, all - (part ?? 0));
  return { calls: beside(left.calls, kept.calls), costMicroUsd: beside(left.costMicroUsd, kept.costMicroUsd) };
}

/** Half of it, rounded up. */
export function halfOf({ calls, costMicroUsd }: GenerationBudget): GenerationBudget {
  const half = (all: number | undefined) => (all === undefined ? undefined : Math.ceil(all / 2));
  return { calls: half(calls), costMicroUsd: half(costMicroUsd) };
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
