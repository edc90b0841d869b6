/**
 * The loop of LLM2LLM (Lee et al. 2024, arXiv 2403.15042), one file to read it
 * in. Each line that has an effect is a step: done once, remembered for ever.
 */

import { stopReason } from "@tutelage/platform/choosing";
import { TutelageError } from "@tutelage/platform/errors";
import {
  ErrorsFrom,
  type Iteration,
  Mining,
  type Outcome,
  Selection,
  StartFrom,
  Switch,
} from "@tutelage/proto/campaigns/v1/campaigns";
import type { Version } from "@tutelage/proto/datasets/v1/datasets";
import { type Row, RowOrigin, Split } from "@tutelage/proto/task/v1/task";
import type { GenerationBudget } from "@tutelage/proto/teacher/v1/teacher";
import { type Campaign, datasetName, rowSource, type SeedData } from "./campaign.js";
import { checkLabels, checkNovelty } from "./checks.js";
import { rowsOf, whileAway } from "./clients.js";
import { commit } from "./commit.js";
import { concludeCampaign } from "./conclusion.js";
import { takeOver } from "./forkstore.js";
import { gradeRound } from "./grading.js";
import { holderOf } from "./holds.js";
import { decide } from "./judging.js";
import { type MinedRow, mine } from "./mining.js";
import { checkSplits, overlapsByKind } from "./overlaps.js";
import { fewestSeedRows } from "./request.js";
import { corrected, Decisions, relabel } from "./reviewing.js";
import { wantedRows, writeOrders } from "./selection.js";
import { needsCrossFit } from "./settings.js";
import { halfOf } from "./spending.js";
import {
  type CrossFit,
  crossFit,
  evaluateStudent,
  predictions,
  type Round,
  type Student,
  trainRoundStudent,
} from "./students.js";
import { trainPlain } from "./tries.js";
import { preflight, writeCandidates } from "./writing.js";

/** Runs a campaign to its end and gives what came of it. */
export async function runCampaign(campaign: Campaign): Promise<Outcome> {
  await shareParent(campaign);
  const given = await openSeed(campaign);
  await campaign.spending.fixCaps("caps");
  await preflight(campaign, given);

  const rounds: Round[] = [];
  const attempts = new Map<string, number>();
  const timesWrong = new Map<string, number>();
  const decisions = new Decisions();
  let seed = given;
  let version = seed.version;
  let trainRows = seed.seedRows;
  let candidateCount = 0;
  let fit: CrossFit | undefined;
  let firstFit: CrossFit | undefined;
  let reason: string | undefined;

  while (reason === undefined) {
    const number = rounds.length;
    campaign.at(number);
    const { settings } = campaign;
    await campaign.spending.fixCaps(`iteration/${number}/caps`);
    await campaign.emit("iteration.started", { iteration: number, train_rows: trainRows.length });

    // Fine-tune the student, and find the rows that it still gets wrong.
    const isLast = number === settings.iterations;
    const judged = settings.errorsFrom === ErrorsFrom.ALL ? trainRows : seed.seedRows;
    const previousFit = settings.startFrom === StartFrom.PREVIOUS ? fit : undefined;
    const crossFits = needsCrossFit(settings, campaign.task) && (!isLast || seed.devRows === 0);
    const cross = () => crossFit(campaign, number, version, seed, judged, previousFit);
    const trained = await trainRound(campaign, number, version, seed, crossFits ? cross : undefined, rounds);
    fit = trained.fit;
    if (number === 0) firstFit = fit;
    const round = await measureRound(campaign, number, version, seed, trained);
    if (seed.leftOut.length > 0) round.iteration.trainRows = trainRows.length;
    rounds.push(round);
    reason = stopReason(
      rounds.map((one) => one.iteration),
      settings,
    );

    if (reason === undefined) {
      // Have the teacher write a new row for each error, as far as the budget goes.
      const answers = await mineRound(campaign, round, judged, fit);
      const graded = await gradeRound(campaign, number, seed, judged, answers, fit, decisions);
      const { mined, inDoubt } = graded;
      for (const { row, correct } of mined) if (!correct) timesWrong.set(row.id, (timesWrong.get(row.id) ?? 0) + 1);
      const wants = wantedRows(mined, settings);
      // A row that is written may have to be paid for a second time where it is checked.
      const keptForChecks: Partial<GenerationBudget> =
        settings.checkTeacher === Switch.ON && campaign.spending.finishesAtBudget
          ? halfOf(campaign.spending.budgetLeft)
          : {};
      const callsForWriting = Math.max(0, campaign.spending.callsLeft - (keptForChecks.calls ?? 0));
      // A row in doubt is no example either.
      const shown = decisions.keep(seed.seedRows).filter((row) => !inDoubt.has(row.id));
      const orders = writeOrders(wants, shown, settings, {
        iteration: number,
        attemptsSoFar: attempts,
        callsLeft: callsForWriting,
        foldOf: fit?.foldOf,
        timesWrong,
      });
      round.iteration.mined = true;
      round.iteration.errors = mined.filter((one) => !one.correct).length;
      const needsErrors = settings.selection !== Selection.ALL && settings.selection !== Selection.UNCERTAIN;
      // Rows that were corrected since are learned from in a round more, whatever else there is to do.
      const isCorrected = graded.taken.some(({ seedRowId }) => decisions.leftOut.has(seedRowId));
      if (wants.length === 0 || (needsErrors && round.iteration.errors === 0)) reason = graded.reason;
      else if (orders.length === 0) reason = "budget";
      if (reason === undefined || isCorrected) {
        reason = undefined;
        for (const order of orders) {
          const id = order.seedRow?.id ?? "";
          attempts.set(id, (attempts.get(id) ?? 0) + order.maxAttempts);
        }
        await campaign.enter(number, "generate");
        const step = `iteration/${number}/generate`;
        const writing = await writeCandidates(campaign, step, orders, number, candidateCount, {
          kept: keptForChecks,
        });
        const written = writing.candidates;
        candidateCount += written.length;

        // Judge them, in the order of their seed rows.
        await campaign.enter(number, "judge");
        const place = { prefix: `iteration/${number}`, iteration: number };
        const novel = await checkNovelty(campaign, place, version, seed, written);
        const wantedByOutput = new Map<string, number>();
        for (const want of campaign.task.labels.length > 0 ? wants : []) {
          const output = want.mined.row.output;
          wantedByOutput.set(output, (wantedByOutput.get(output) ?? 0) + want.rows);
        }
        const checked = await checkLabels(campaign, place, seed, fit, novel, wantedByOutput);
        const decided = decide(checked, settings, wantedByOutput);
        round.iteration.overlapsByKind = overlapsByKind(decided);

        // Add what was accepted to the training rows, and go round again.
        await campaign.enter(number, "commit");
        const base = await relabel(campaign, number, version, trainRows, graded.taken, decisions);
        const grown = await commit(campaign, round, base, trainRows, decided, isCorrected);
        if (grown === undefined) reason = writing.cut ? "budget" : "nothing_accepted";
        else [version, trainRows] = [grown.version, decisions.keep(withoutDropped(campaign, grown.trainRows))];
        if (isCorrected) seed = corrected(seed, trainRows, decisions);
      }
    }
    await closeRound(campaign, round);
  }
  return await concludeCampaign(campaign, given, rounds, firstFit, reason);
}

/** A fork takes over what its parent did before the iteration at which they part. */
async function shareParent(campaign: Campaign): Promise<void> {
  const { fork } = campaign.request;
  if (fork === undefined) return;
  await campaign.step(
    "fork",
    async () => null,
    async (transaction) => {
      await takeOver(transaction, campaign.key, fork);
      const payload = { campaign_id: fork.campaignId, iteration: fork.iteration };
      await campaign.store.putEvent(transaction, campaign.key, "campaign.forked", payload);
    },
  );
}

/** Reads the user's rows and makes the dataset that will hold the campaign's versions. */
async function openSeed(campaign: Campaign): Promise<SeedData> {
  const { services, projectId, signal, request } = campaign;
  const version = await whileAway(signal, () =>
    services.datasets.getVersion({ projectId, id: request.datasetVersionId }, { signal }),
  );
  const datasetId = await campaign.step("open", async () => {
    const name = datasetName(campaign.key.campaignId);
    const dataset = await whileAway(signal, () =>
      services.datasets
        .createDataset({ projectId, name, owner: holderOf(campaign.key.campaignId) }, { signal })
        .catch((error: unknown) => {
          // Made by a holder that died before it could say so.
          if (error instanceof TutelageError && error.code === "already_exists")
            return services.datasets.getDataset({ projectId, name, id: "" }, { signal });
          throw error;
        }),
    );
    return dataset.id;
  });
  campaign.datasetId = datasetId;
  await campaign.lease.report({}, { datasetId });
  campaign.droppedRowIds = await checkSplits(campaign, version);
  const trainRows = await rowsOf(services, projectId, version.id, Split.TRAIN, signal);
  const seedRows = withoutDropped(campaign, trainRows).filter((row) => row.origin === RowOrigin.SEED);
  if (campaign.droppedRowIds.length > 0 && seedRows.length < fewestSeedRows) {
    throw new TutelageError(
      "failed_precondition",
      `Without the ${campaign.droppedRowIds.length} train rows that say what a dev or test row says ${seedRows.length} ` +
        `seed rows are left; a campaign needs at least ${fewestSeedRows}. Import others in split train.`,
      { reason: "too_few_seed_rows" },
    );
  }
  return {
    version,
    seedRows,
    devRows: version.splits?.dev ?? 0,
    testRows: version.splits?.test ?? 0,
    givenRows: seedRows,
    leftOut: [],
    grewFrom: new Map(),
  };
}

function withoutDropped({ droppedRowIds }: Campaign, rows: readonly Row[]): Row[] {
  const dropped = new Set(droppedRowIds);
  return rows.filter((row) => !dropped.has(row.id));
}

/** What a round is judged by. */
interface Trained {
  fit: CrossFit | undefined;
  student: Student | undefined;
}

/**
 * Cross-fits the round, and trains its own student beside that where one is needed to judge it. Beside the last one's
 * student, which would leave others idle, plain fine-tuning begins.
 */
async function trainRound(
  campaign: Campaign,
  number: number,
  version: Version,
  seed: SeedData,
  cross: (() => Promise<CrossFit>) | undefined,
  before: readonly Round[],
): Promise<Trained> {
  const { settings } = campaign;
  const needed = seed.devRows > 0 || settings.mining === Mining.IN_SAMPLE || settings.startFrom === StartFrom.PREVIOUS;
  const own = async () =>
    needed ? await trainRoundStudent(campaign, number, version, seed.leftOut, before.at(-1)?.student) : undefined;
  if (cross === undefined) {
    await campaign.enter(number, "train");
    // Not where training seconds are capped: what is left of them is for measuring this round first.
    const plainBegins = number === settings.iterations && before.length > 0 && !campaign.spending.boundsTraining;
    const plain = plainBegins
      ? [async () => void (await trainPlain(campaign, seed, before[0], before.length + 1))]
      : [];
    const [student] = await campaign.sideBySide([own, ...plain]);
    return { fit: undefined, student };
  }
  await campaign.enter(number, "cross_fit");
  const [fit, student] = await campaign.sideBySide([cross, own]);
  if (needed) await campaign.enter(number, "train");
  return { fit, student };
}

/** Measures what a round is judged by. */
async function measureRound(
  campaign: Campaign,
  number: number,
  version: Version,
  seed: SeedData,
  { fit, student }: Trained,
): Promise<Round> {
  const iteration: Iteration = {
    number,
    datasetVersionId: version.id,
    datasetDigest: version.digest,
    trainRows: (version.splits?.train ?? 0) - campaign.droppedRowIds.length,
    trainingRunId: student?.trainingRunId ?? "",
    checkpoint: student?.checkpoint,
    crossFitAccuracy: fit?.accuracy,
    devAccuracy: undefined,
    testAccuracy: undefined,
    errors: 0,
    candidates: 0,
    accepted: 0,
    rejected: {},
    seconds: 0,
    phaseSeconds: {},
    mined: false,
    overlapsByKind: {},
  };
  if (student !== undefined && seed.devRows > 0) {
    const dev = rowSource(version, { split: Split.DEV });
    iteration.devAccuracy = (
      await evaluateStudent(campaign, `iteration/${number}/dev`, student.checkpoint, dev)
    ).accuracy;
  }
  return { iteration, version, student, heldOutRight: fit?.right, leftOut: seed.leftOut, grewFrom: seed.grewFrom };
}

/** The rows with the answers of the student that judges them: one that never saw them, or the round's own. */
async function mineRound(
  campaign: Campaign,
  round: Round,
  judged: readonly Row[],
  fit: CrossFit | undefined,
): Promise<MinedRow[]> {
  if (campaign.settings.mining === Mining.CROSS_FIT && fit !== undefined) return mine(judged, fit.heldOut);
  if (round.student === undefined) throw new Error("In-sample mining needs the round's student.");
  await campaign.enter(round.iteration.number, "mine");
  const rows = rowSource(round.version, { rowIds: judged.map((row) => row.id) });
  const evaluated = await evaluateStudent(
    campaign,
    `iteration/${round.iteration.number}/mine`,
    round.student.checkpoint,
    rows,
  );
  return mine(judged, await predictions(campaign, evaluated));
}

/** Stores the round with its times, and says that it is over. */
async function closeRound(campaign: Campaign, round: Round): Promise<void> {
  const { iteration } = round;
  const prefix = `iteration/${iteration.number}/`;
  for (const phase of ["cross_fit", "train", "dev", "mine", "audit", "generate", "novelty", "check", "commit"]) {
    const seconds = campaign.secondsOf(`${prefix}${phase}`);
    if (seconds > 0) iteration.phaseSeconds[phase] = seconds;
  }
  iteration.seconds = Object.values(iteration.phaseSeconds).reduce((a, b) => a + b, 0);
  await campaign.step(
    `${prefix}close`,
    async () => null,
    async (transaction) => {
      await campaign.store.putIteration(transaction, campaign.key, iteration);
      await campaign.store.putEvent(transaction, campaign.key, "iteration.finished", {
        iteration: iteration.number,
        train_rows: iteration.trainRows,
        errors: iteration.errors,
        candidates: iteration.candidates,
        accepted: iteration.accepted,
        rejected: iteration.rejected,
        overlaps_by_kind: iteration.overlapsByKind,
        cross_fit_accuracy: iteration.crossFitAccuracy?.value ?? null,
        dev_accuracy: iteration.devAccuracy?.value ?? null,
        seconds: iteration.seconds,
      });
    },
  );
}
