/** What one attempt at a training stores on its way: steps, resume points, incidents, and how long it took. */
import type { ArtifactStore } from "@tutelage/platform/artifacts";
import type { Lease, RunProgress } from "@tutelage/platform/runs";
import {
  type ResumePoint,
  type TrainIncident,
  TrainIncidentKind,
  type TrainStarted,
  type TrainStep,
} from "@tutelage/proto/student/v1/student";
import { deleteSteps, insertSteps } from "./store.js";
import type { CheckedRequest, StoredIncident, TrainingState } from "./trainingrun.js";

/** Steps come up to 100 a second from a tiny student; a person sees four a second. */
const storeEveryMs = 250;
/** The newest may be torn when a machine loses its power. */
const keptPoints = 2;
const keptIncidents = 100;

export class Attempt {
  private readonly run: { projectId: string; runId: string };
  private steps: TrainStep[] = [];
  private storedAt = 0;
  private startedAt: number | undefined;
  private points: ResumePoint[];
  private incidents: StoredIncident[];
  /** Whether it left a resume point of its own. */
  hasKept = false;

  constructor(
    private readonly lease: Lease<CheckedRequest, TrainingState>,
    private readonly artifacts: Pick<ArtifactStore, "remove">,
  ) {
    const { id: runId, projectId, state } = lease.run;
    this.run = { projectId, runId };
    this.points = state.resumePoints ?? [];
    this.incidents = state.incidents ?? [];
  }

  /** Seconds that the student worked on the run, in this attempt and those before. */
  get trainSeconds(): number {
    const own = this.startedAt === undefined ? 0 : (performance.now() - this.startedAt) / 1_000;
    return (this.lease.run.state.trainSeconds ?? 0) + own;
  }

  /** The student has begun: what was made after the step that it goes on from was made in vain. */
  async started({ rows, totalSteps, tooLongRowIds, resumedStep }: TrainStarted): Promise<void> {
    this.startedAt = performance.now();
    const { state } = this.lease.run;
    await this.lease.write((transaction) => deleteSteps(transaction, this.run, resumedStep));
    // Those after it were passed over.
    this.points = this.points.filter(({ step }) => step <= resumedStep);
    const message = resumedStep > 0 ? `training; went on after step ${resumedStep}` : "training";
    if (resumedStep > 0) {
      const lost = Math.max(0, (state.lastStep?.step ?? 0) - resumedStep);
      this.note({
        kind: TrainIncidentKind.RESUMED,
        step: resumedStep,
        message: `Went on after step ${resumedStep} of ${totalSteps}; ${lost} later steps are made again.`,
      });
    }
    await this.report(
      { done: resumedStep, total: totalSteps, unit: "steps", etaSeconds: 0, message },
      {
        rows,
        tooLongRowIds,
        unreachableSince: null,
        attempts: [...(state.attempts ?? []), this.lease.fence],
        resumePoints: this.points,
        ...(resumedStep > 0 ? {} : { lastStep: null }),
      },
    );
  }

  /** A step ended; it is stored with others. */
  async step(step: TrainStep): Promise<void> {
    this.steps.push(step);
    if (performance.now() - this.storedAt >= storeEveryMs) await this.storeSteps();
  }

  /** Stores the steps that wait. */
  async storeSteps(): Promise<void> {
    const batch = this.steps;
    this.steps = [];
    const last = batch.at(-1);
    if (last === undefined) return;
    await this.lease.write((transaction) => insertSteps(transaction, this.run, batch));
    await this.report({ done: last.step, total: last.totalSteps, etaSeconds: last.etaSeconds }, { lastStep: last });
    this.storedAt = performance.now();
  }

  /** A resume point is on disk. It counts once it is stored here, after the steps that it stands on. */
  async resumePoint(point: ResumePoint): Promise<void> {
    await this.storeSteps();
    const all = [point, ...this.points];
    this.points = all.slice(0, keptPoints);
    this.hasKept = true;
    await this.report({}, { resumePoints: this.points, studentLosses: 0 });
    await this.lease.advance(async () => {});
    for (const { uri } of all.slice(keptPoints)) await this.artifacts.remove(uri);
  }

  /** The training lived through something and says so. */
  async incident(incident: TrainIncident): Promise<void> {
    this.note(incident);
    await this.report({ message: `training; ${incident.message}` }, {});
  }

  /** Adds an incident; gives all that are kept. */
  note({ kind, step, message }: Pick<TrainIncident, "kind" | "step" | "message">): StoredIncident[] {
    this.incidents = [...this.incidents, { kind, step, message, at: new Date().toISOString() }].slice(-keptIncidents);
    return this.incidents;
  }

  private async report(progress: Partial<RunProgress>, state: Partial<TrainingState>): Promise<void> {
    await this.lease.report(progress, { ...state, trainSeconds: this.trainSeconds, incidents: this.incidents });
  }
}
