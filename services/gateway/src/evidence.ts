/** What an evidence bundle holds of a campaign, read from the services as it is written: one member in memory. */
import { type BundlePart, listParts } from "@tutelage/platform/bundle";
import { linesOf } from "@tutelage/platform/rowfile";
import {
  Campaign,
  Candidate,
  Iteration,
  LedgerTotal,
  Report,
  SeedRow,
  Step,
} from "@tutelage/proto/campaigns/v1/campaigns";
import { Version } from "@tutelage/proto/datasets/v1/datasets";
import { EvaluationRun, GradedPrediction } from "@tutelage/proto/evaluation/v1/evaluation";
import { RunStatus } from "@tutelage/proto/run/v1/run";
import { TrainStep } from "@tutelage/proto/student/v1/student";
import { Row } from "@tutelage/proto/task/v1/task";
import { Call, GenerationRun, Result, TeacherProfile } from "@tutelage/proto/teacher/v1/teacher";
import { StudentProfile, TrainingRun } from "@tutelage/proto/training/v1/training";
import type { Backends } from "./backends.js";
import { projectId } from "./fields.js";

const pageSize = 1_000;
/** Of one stream of a whole run's or version's rows, read no faster than the client takes them. */
const streamMs = 24 * 3_600_000;

const readme = `This is the evidence of one Tutelage campaign: what it was asked, what it did, and what came of it.

    tutelage verify BUNDLE.tar

checks every byte of it by its digest, and makes every reported number again from the parts. It needs no server.

A name that ends in .jsonl is a part of a list, one JSON document a line; the parts of a list follow one another by
number. A document is the proto3 JSON of a message in Tutelage's contracts (fields that have their default are left out);
where a line belongs to a run of another service, runId names it. rows-*.jsonl are rows as datasets export them: of
each version in versions-*.jsonl, in that order, those that its parent does not have. Students' weights are not here:
their digests are, in training-runs-*.jsonl. manifest.json has the size and SHA-256 of everything else.
`;

/** All members but the manifest, in their order. */
export async function* evidenceParts(
  backends: Backends,
  campaign: Campaign,
  signal: AbortSignal,
): AsyncGenerator<BundlePart> {
  const id = campaign.run?.id ?? "";
  const { steps } = await backends.campaigns.listSteps({ projectId, id }, { signal });
  const source = new Evidence(backends, campaign, steps, signal);
  yield { name: "README.md", bytes: Buffer.from(readme) };
  yield document("campaign.json", Campaign.toJSON(lasting(campaign)));
  yield* listParts("ancestors", source.ancestors());
  yield* listParts("student-profiles", source.studentProfiles());
  yield* listParts("teacher-profiles", source.teacherProfiles());
  yield* listParts("steps", linesOfAll(steps, Step));
  const versions = await source.versions();
  yield* listParts("versions", linesOfAll(versions, Version));
  yield* listParts("rows", source.rows(versions));
  yield* listParts("training-runs", source.trainingRuns());
  yield* listParts("training-steps", source.trainingSteps());
  yield* listParts("evaluation-runs", source.evaluationRuns());
  yield* listParts("predictions", source.predictions());
  // Calls before results and candidates, which refer to them.
  yield* listParts("calls", source.calls());
  yield* listParts("generation-runs", source.generationRuns());
  yield* listParts("results", source.results());
  const { iterations } = await backends.campaigns.listIterations({ projectId, id }, { signal });
  yield* listParts("iterations", linesOfAll(iterations, Iteration));
  yield* listParts("candidates", source.candidates());
  yield* listParts("seed-rows", source.seedRows());
  yield* listParts("ledger-totals", source.ledgerTotals());
  if (campaign.run?.status !== RunStatus.SUCCEEDED) return;
  const report = await backends.campaigns.getReport({ projectId, id }, { signal });
  // What has a member of its own is not said twice.
  yield document("report.json", Report.toJSON({ ...report, campaign: undefined, seedRows: [], candidates: [] }));
}

/** Without what may change when the campaign is over. */
function lasting(campaign: Campaign): Campaign {
  return { ...campaign, note: "", tags: [], teacherWait: undefined };
}

interface Message<T> {
  toJSON(message: T): unknown;
}

async function* linesOfAll<T>(messages: Iterable<T>, type: Message<T>): AsyncGenerator<string> {
  for (const message of messages) yield lineOf(type.toJSON(message));
}

function document(name: string, value: unknown): BundlePart {
  return { name, bytes: Buffer.from(lineOf(value)) };
}

function lineOf(value: unknown): string {
  return `${JSON.stringify(value, (key, inner) => (/uri$/i.test(key) ? withoutRoot(inner) : inner))}\n`;
}

/** Where an artifact lies in its store, but not where that is: "<project>/runs/…". */
function withoutRoot(uri: unknown): unknown {
  return typeof uri === "string" ? uri.replace(/^.*\/(?=[^/]+\/(?:runs|versions)\/)/, "") : uri;
}

class Evidence {
  /** Key by id. */
  private readonly generationRunKeys = new Map<string, string>();

  constructor(
    private readonly backends: Backends,
    private readonly campaign: Campaign,
    private readonly steps: readonly Step[],
    private readonly signal: AbortSignal,
  ) {}

  private get id(): string {
    return this.campaign.run?.id ?? "";
  }

  private get stream() {
    return { signal: this.signal, deadline: streamMs };
  }

  /** What a fork was made of, the nearest first: under their settings was done what it shares. */
  async *ancestors(): AsyncGenerator<string> {
    for (let fork = this.campaign.forkedFrom; fork !== undefined; ) {
      const parent = await this.backends.campaigns.getCampaign({ projectId, id: fork.campaignId });
      // Its own state may still change; what it was asked does not.
      const { request, forkedFrom } = parent;
      yield lineOf(Campaign.toJSON(Campaign.fromPartial({ run: { id: fork.campaignId }, request, forkedFrom })));
      fork = parent.forkedFrom;
    }
  }

  /** As the operator offers it now, if he still does. */
  async *studentProfiles(): AsyncGenerator<string> {
    const { profiles } = await this.backends.training.listStudentProfiles({ projectId });
    const used = profiles.filter(({ name }) => name === this.campaign.request?.studentProfile);
    yield* linesOfAll(used, StudentProfile);
  }

  /** The campaign's, and those that stand in for it. */
  async *teacherProfiles(): AsyncGenerator<string> {
    const { profiles } = await this.backends.teacher.listTeacherProfiles({ projectId });
    const used = new Set<string>();
    const { teacherProfile = "", settings } = this.campaign.request ?? {};
    for (const first of [teacherProfile, settings?.oracleTeacherProfile ?? ""]) {
      for (let name = first; name !== "" && !used.has(name); ) {
        used.add(name);
        name = profiles.find((one) => one.name === name)?.fallback ?? "";
      }
    }
    yield* linesOfAll(
      profiles.filter(({ name }) => used.has(name)),
      TeacherProfile,
    );
  }

  /** Every version that the campaign began with, made or used, parents first; none that is older than its seed rows'. */
  async versions(): Promise<Version[]> {
    const { datasets, campaigns } = this.backends;
    const { iterations } = await campaigns.listIterations({ projectId, id: this.id });
    const seedId = this.campaign.request?.datasetVersionId ?? "";
    const made = this.campaign.datasetId === "" ? [] : await this.versionsOf(this.campaign.datasetId);
    const ids = new Set([
      seedId,
      ...iterations.map((one) => one.datasetVersionId),
      ...made.reverse().map((version) => version.id),
    ]);
    const versions = new Map<string, Version>();
    const add = async (id: string): Promise<void> => {
      if (id === "" || versions.has(id)) return;
      const version = await datasets.getVersion({ projectId, id }, { signal: this.signal });
      if (id !== seedId) await add(version.parentVersionId);
      versions.set(id, version);
    };
    for (const id of ids) await add(id);
    return [...versions.values()];
  }

  private async versionsOf(datasetId: string): Promise<Version[]> {
    const versions: Version[] = [];
    let cursor = "";
    do {
      const page = await this.backends.datasets.listVersions({ projectId, datasetId, pageSize, cursor });
      versions.push(...page.versions);
      cursor = page.nextCursor;
    } while (cursor !== "");
    return versions;
  }

  /** Of each version the rows that its parent in the bundle does not have. */
  async *rows(versions: readonly Version[]): AsyncGenerator<string> {
    const ids = new Set(versions.map(({ id }) => id));
    for (const version of versions) {
      let before = ids.has(version.parentVersionId) ? version.rowCount - version.addedRowCount : 0;
      for await (const line of linesOf(this.exported(version.id))) {
        if (before > 0) before -= 1;
        else yield `${line}\n`;
      }
    }
  }

  private async *exported(versionId: string): AsyncGenerator<Buffer> {
    for await (const { chunk } of this.backends.datasets.exportRows({ projectId, versionId }, this.stream)) {
      yield Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    }
  }

  private runsOf(service: "trainingRunId" | "evaluationRunId"): { projectId: string; id: string }[] {
    const ids = new Set(this.steps.map((step) => step[service]).filter((id) => id !== ""));
    return [...ids].map((id) => ({ projectId, id }));
  }

  async *trainingRuns(): AsyncGenerator<string> {
    for (const which of this.runsOf("trainingRunId")) {
      const run = await this.backends.training.getTrainingRun(which, { signal: this.signal });
      // Files may be removed when the campaign is over.
      yield lineOf(TrainingRun.toJSON({ ...run, checkpointRemoved: false }));
    }
  }

  async *trainingSteps(): AsyncGenerator<string> {
    for (const which of this.runsOf("trainingRunId")) {
      for await (const { steps } of this.backends.training.listTrainingSteps(which, this.stream)) {
        for (const step of steps) yield lineOfRun(which.id, TrainStep.toJSON(step));
      }
    }
  }

  async *evaluationRuns(): AsyncGenerator<string> {
    for (const which of this.runsOf("evaluationRunId")) {
      yield lineOf(
        EvaluationRun.toJSON(await this.backends.evaluation.getEvaluationRun(which, { signal: this.signal })),
      );
    }
  }

  async *predictions(): AsyncGenerator<string> {
    for (const which of this.runsOf("evaluationRunId")) {
      const batches = this.backends.evaluation.listPredictions({ ...which, wrongOnly: false }, this.stream);
      for await (const { predictions } of batches) {
        for (const prediction of predictions) yield lineOfRun(which.id, GradedPrediction.toJSON(prediction));
      }
    }
  }

  /** Those of its own runs, of steps that did not end, too; of the runs that a fork shares; and those reused. */
  async *calls(): AsyncGenerator<string> {
    const runIds = this.steps.map((step) => step.generationRunId).filter((id) => id !== "");
    const ledger = { projectId, runKeyPrefix: `${this.id}/`, runIds: [...new Set(runIds)] };
    for await (const { runId, runKey, calls } of this.backends.teacher.exportLedger(ledger, this.stream)) {
      if (runId !== "") this.generationRunKeys.set(runId, runKey);
      for (const call of calls) yield lineOfRun(runId, Call.toJSON(call));
    }
  }

  /** Once the calls are read: they say which runs there are. */
  async *generationRuns(): AsyncGenerator<string> {
    for (const [id, runKey] of this.generationRunKeys) {
      const run = await this.backends.teacher.getGenerationRun({ projectId, id }, { signal: this.signal });
      yield lineOf({ runKey, ...(GenerationRun.toJSON(run) as object) });
    }
  }

  async *results(): AsyncGenerator<string> {
    for (const id of this.generationRunKeys.keys()) {
      for await (const { results } of this.backends.teacher.listResults({ projectId, id }, this.stream)) {
        for (const result of results) yield lineOfRun(id, Result.toJSON(result));
      }
    }
  }

  async *candidates(): AsyncGenerator<string> {
    let cursor = "";
    do {
      const asked = { projectId, id: this.id, iteration: -1, pageSize, cursor };
      const page = await this.backends.campaigns.listCandidates(asked, { signal: this.signal });
      yield* linesOfAll(page.candidates, Candidate);
      cursor = page.nextCursor;
    } while (cursor !== "");
  }

  /** With the row's id alone: the row is among the rows. */
  async *seedRows(): AsyncGenerator<string> {
    let cursor = "";
    do {
      const asked = { projectId, id: this.id, pageSize, cursor };
      const page = await this.backends.campaigns.listSeedRows(asked, { signal: this.signal });
      const rows = page.rows.map((one) => ({ ...one, row: Row.fromPartial({ id: one.row?.id ?? "" }) }));
      yield* linesOfAll(rows, SeedRow);
      cursor = page.nextCursor;
    } while (cursor !== "");
  }

  async *ledgerTotals(): AsyncGenerator<string> {
    const { totals } = await this.backends.campaigns.listLedger({ projectId, id: this.id, pageSize: 1 });
    yield* linesOfAll(totals, LedgerTotal);
  }
}

function lineOfRun(runId: string, json: unknown): string {
  return lineOf({ runId, ...(json as object) });
}
