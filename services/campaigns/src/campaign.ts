/** A campaign at work: what it was asked, whom it asks, and the steps it has behind it. */
import type { ArtifactStore } from "@tutelage/platform/artifacts";
import type { Transaction } from "@tutelage/platform/database";
import type { Lease } from "@tutelage/platform/runs";
import {
  type CodeRelease,
  type Outcome,
  type Settings,
  type Shortfall,
  type StartCampaignRequest,
  Switch,
} from "@tutelage/proto/campaigns/v1/campaigns";
import type { Version } from "@tutelage/proto/datasets/v1/datasets";
import type { Owner } from "@tutelage/proto/run/v1/owner";
import type { Recipe } from "@tutelage/proto/student/v1/student";
import { type Row, type RowSource, Split, Task } from "@tutelage/proto/task/v1/task";
import type { Usage } from "@tutelage/proto/teacher/v1/teacher";
import { Children } from "./children.js";
import type { ChildRun, ChildService, Services, Waiting } from "./clients.js";
import type { EventType } from "./events.js";
import { type Fork, settingsAt } from "./fork.js";
import { Spending } from "./spending.js";
import { StepClock } from "./stepclock.js";
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
  /** The runs of other services that its steps wait for, or waited for when it stopped, by their names. */
  children: Record<string, ChildRun>;
  /** The services that were ever asked for such. */
  asked: ChildService[];
  /** The claim of its last holder, once it has ended and none of its runs goes on. */
  childrenStopped: number;
  /** Times that it was tried again after a failure. */
  retries: number;
  /** The runs that it waited for when it failed, to be tried again first. */
  retryOf: Record<string, ChildRun> | null;
  /** The hold on its dataset's version has no end any more; false when that version was gone. */
  versionHeld: boolean;
  /** The checkpoints that its outcome does not name are given up: nothing may want them any more. */
  checkpointsSwept: boolean;
  /** They are removed. */
  checkpointsGone: boolean;
  /** What somebody wrote down about it. */
  note: string;
  tags: string[];
  /** Set while it waits for a teacher that does not answer; times as ISO 8601. */
  teacherWait: StoredTeacherWait | null;
  /** The code that worked on it, each release once. */
  code: CodeRelease[];
}

/** A request whose task and settings are resolved, the recipe too. */
export interface ResolvedRequest extends StartCampaignRequest {
  task: Task;
  settings: Settings & { recipe: Recipe };
  /** Of a campaign that goes on from another one. */
  fork?: Fork;
}

export type CampaignLease = Lease<ResolvedRequest, CampaignState>;

/**
 * The loop's view of the world. Everything with an effect goes through
 * `step`: after a restart the loop runs again from its first line, finds the
 * steps that were done, and goes on from the first that was not.
 */
export class Campaign {
  readonly key: CampaignKey;
  readonly task: Task;
  /** The dataset that holds this campaign's versions. */
  datasetId = "";
  /** Train rows that are left out, as they say what a dev or test row says. */
  droppedRowIds: readonly string[] = [];
  private readonly secondsByStep = new Map<string, number>();
  private readonly sharedSteps = new Set<string>();
  private readonly clock = new StepClock();
  private readonly children: Children;
  private current = 0;
  /** What comes of it when the teacher does not answer. */
  readonly teacherAbsence: TeacherAbsence;
  /** What it uses, and what its budget leaves. */
  readonly spending: Spending;

  constructor(
    readonly lease: CampaignLease,
    readonly services: Services,
    readonly artifacts: ArtifactStore,
    readonly store: CampaignStore,
  ) {
    this.key = { projectId: lease.run.projectId, campaignId: lease.run.id };
    // A run that an earlier release stored lacks the fields that the contract gained since.
    this.task = Task.fromPartial(lease.run.request.task);
    this.children = new Children(lease);
    this.teacherAbsence = new TeacherAbsence(lease, services, store);
    this.spending = new Spending(this);
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
    if (this.request.fork?.shared.some(({ until }) => until === iteration)) this.spending.nextAncestor();
  }

  get request(): ResolvedRequest {
    return this.lease.run.request;
  }

  /** Times that it was tried again after a failure. */
  get retries(): number {
    return (this.request.fork?.retries ?? 0) + (this.lease.run.state.retries ?? 0);
  }

  /** What its child runs are started and resumed for. */
  get owner(): Owner {
    return { id: this.key.campaignId, fence: this.lease.fence };
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
      this.children.ended(name);
      this.secondsByStep.set(name, done.seconds);
      if (done.shared) this.sharedSteps.add(name);
      return done.output as Output;
    }
    const end = this.clock.begin();
    let seconds = 0;
    const output = await work().finally(() => {
      seconds = end();
    });
    await this.lease.advance(async (transaction) => {
      await this.store.putStep(transaction, this.key, { name, output: output ?? null, seconds });
      await effects?.(transaction, output);
    });
    this.children.ended(name);
    this.secondsByStep.set(name, seconds);
    return output;
  }

  /** Whether a fork found a step done by its parent. */
  isShared(step: string): boolean {
    return this.sharedSteps.has(step);
  }

  /** Whether the loop is in an iteration that a fork shares with its parent. */
  get isInSharedIteration(): boolean {
    return this.current < (this.request.fork?.iteration ?? 0);
  }

  /**
   * Does several things at the same time, as far as there are students for
   * it, and gives what came of them in order. Where a cap bounds the seconds of
   * training they are done one after the other, as each may use all that is
   * left. Throws the first error once all have ended: what succeeded is stored.
   */
  async sideBySide<Results extends readonly unknown[]>(
    tasks: readonly [...{ [Place in keyof Results]: () => Promise<Results[Place]> }],
  ): Promise<Results> {
    const results: unknown[] = [];
    if (this.spending.boundsTraining) for (const task of tasks) results.push(await task());
    else {
      const settled = await Promise.allSettled(tasks.map((task) => task()));
      for (const one of settled) {
        if (one.status === "rejected") throw one.reason;
        results.push(one.value);
      }
    }
    return results as unknown as Results;
  }

  /** Seconds of all steps that are its own. */
  get wallSeconds(): number {
    let seconds = 0;
    for (const [name, own] of this.secondsByStep) if (!this.isShared(name)) seconds += own;
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

  /** Notes with which code the campaign goes on. */
  async noteCode(release: CodeRelease): Promise<void> {
    const before = this.lease.run.state.code ?? [];
    if (before.some(({ sha256 }) => sha256 === release.sha256)) return;
    await this.lease.report({}, { code: [...before, release] });
  }

  /** How a step waits for its run. */
  waitingFor(step: string): Waiting<never> {
    return {
      signal: this.signal,
      owner: this.owner,
      onStarting: async (service) => await this.children.starting(service),
      onStarted: async (child) => await this.children.started(step, child),
      onProgress: async (run) => await this.children.moved(step, run),
      onTeacherWait: async (wait) => await this.teacherAbsence.note(wait),
    };
  }
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

/**
 * The rows that students are trained on.
 * @param excludeRootRowIds seed rows to leave out besides, with what grew from them
 */
export function trainSource(
  { droppedRowIds }: Pick<Campaign, "droppedRowIds">,
  version: Version,
  excludeRootRowIds: readonly string[] = [],
): RowSource {
  return rowSource(version, { split: Split.TRAIN, excludeRootRowIds: [...droppedRowIds, ...excludeRootRowIds] });
}

/** The user's rows, and the version they came in. */
export interface SeedData {
  version: Version;
  /** Split train: what the student learns from and is mined on. */
  seedRows: Row[];
  devRows: number;
  testRows: number;
  /** The seed rows as the user gave them; seedRows are these until somebody corrects or excludes some. */
  givenRows: readonly Row[];
  /** Seed rows of the campaign's versions that are not learned from, nor is what is rooted in them. In order. */
  leftOut: readonly string[];
  /** After the id of a corrected row, the id of the row that it was. */
  grewFrom: ReadonlyMap<string, string>;
}
