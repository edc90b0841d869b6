/** Rows that an arm trains on besides the seed rows: the teacher's, asked without the loop, or made without a teacher. */
import { rowText } from "@tutelage/platform/conversation";
import { heldOutText } from "@tutelage/platform/heldouttext";
import type { Settings } from "@tutelage/proto/campaigns/v1/campaigns";
import { OverlapKind, type Version } from "@tutelage/proto/datasets/v1/datasets";
import { type Row, RowOrigin, Split } from "@tutelage/proto/task/v1/task";
import { type WriteOrder, WriteStyle } from "@tutelage/proto/teacher/v1/teacher";
import type { Compared } from "./arms.js";
import type { Campaign } from "./campaign.js";
import { checkLabels, checkNovelty } from "./checks.js";
import { rowsOf, whileAway } from "./clients.js";
import { append, newRow } from "./commit.js";
import { edaTexts } from "./eda.js";
import { decide } from "./judging.js";
import { overlapsOf } from "./overlaps.js";
import { derivedSeed, randomStream } from "./random.js";
import { apportion, type Want, writeOrders } from "./selection.js";
import { wordNet } from "./wordnet.js";
import { writeCandidates } from "./writing.js";

/** The version that an arm trains on, with how many rows are its own; or why there is none. */
export type Made = { version: Version; rows: number } | { leftOut: string };

/** An oracle is asked for so many times the rows that it is to have. */
const oracleSurplus = 1.5;

type TeacherArm = "auggpt" | "random" | "oracle";

/** What a seed row is asked for, and how. */
interface Plan {
  /** New rows to ask for by seed row id. */
  counts: ReadonlyMap<string, number>;
  /** Of them, by seed row id, those that are kept at most: in a closed label set the sum for each label. */
  kept: ReadonlyMap<string, number>;
  attemptsPerRow: number;
  style: WriteStyle;
  teacherProfile: string;
  checksLabels: boolean;
}

/** Has a teacher write an arm's rows in one step, from seed rows that no student chose. */
export async function growByTeacher(campaign: Campaign, arm: TeacherArm, compared: Compared): Promise<Made> {
  const { seed, firstFit } = compared;
  const { settings } = campaign;
  const place = { prefix: `arm/${arm}`, iteration: 0 };
  const plan = await planOf(campaign, arm, compared);
  const wants: Want[] = seed.seedRows.flatMap((row) => {
    const rows = plan.counts.get(row.id) ?? 0;
    const mined = { row, correct: true, disputed: false, text: "", answer: "", expectedLogProbability: undefined };
    return rows === 0 ? [] : [{ mined, rows }];
  });
  if (wants.length === 0) return { leftOut: "The campaign itself made no rows to compare with." };
  const needed = wants.reduce((calls, want) => calls + want.rows * plan.attemptsPerRow, 0);
  const notPaid = { leftOut: "The budget does not pay for its teacher calls." };
  if (needed > campaign.spending.callsLeft) return notPaid;
  const asked: Settings = { ...settings, attemptsPerRow: plan.attemptsPerRow };
  const orders = writeOrders(wants, seed.seedRows, asked, {
    iteration: 0,
    attemptsSoFar: new Map(),
    callsLeft: needed,
    foldOf: firstFit?.foldOf,
  });
  const { teacherProfile, style } = plan;
  const step = `${place.prefix}/write`;
  const writing = await writeCandidates(campaign, step, orders.flatMap(inPortions), 0, 0, { teacherProfile, style });
  if (writing.cut) return notPaid;
  const novel = await checkNovelty(campaign, place, seed.version, seed, writing.candidates);
  const most = sumByOutput(seed.seedRows, plan.kept);
  const checked = plan.checksLabels ? await checkLabels(campaign, place, seed, firstFit, novel, most) : novel;
  const parents = new Map(seed.seedRows.map((row) => [row.id, row]));
  const accepted = decide(checked, settings, campaign.task.labels.length > 0 ? most : new Map()).filter(
    (one) => one.accepted,
  );
  return await grow(
    campaign,
    place.prefix,
    compared,
    accepted.map((one) => newRow(one, parents.get(one.seedRowId), place.iteration, { arm, call_id: one.callId })),
  );
}

/** The teacher service takes so many rows an order, and an arm asks at once for what the loop spread over iterations. */
const rowsPerOrder = 100;

/** An order in portions that go on counting attempts. */
export function inPortions(order: WriteOrder): WriteOrder[] {
  const portions: WriteOrder[] = [];
  const attemptsPerRow = order.maxAttempts / order.count;
  for (let start = 0; start < order.count; start += rowsPerOrder) {
    const count = Math.min(rowsPerOrder, order.count - start);
    const attemptsBefore = Math.floor(start * attemptsPerRow);
    const maxAttempts = Math.floor((start + count) * attemptsPerRow) - attemptsBefore;
    portions.push({ ...order, count, maxAttempts, firstAttempt: order.firstAttempt + attemptsBefore });
  }
  return portions;
}

/** Rows by output, of seed rows that have so many each. */
function sumByOutput(seedRows: readonly Row[], counts: ReadonlyMap<string, number>): Map<string, number> {
  const sums = new Map<string, number>();
  for (const { id, output } of seedRows) sums.set(output, (sums.get(output) ?? 0) + (counts.get(id) ?? 0));
  return sums;
}

async function planOf(campaign: Campaign, arm: TeacherArm, compared: Compared): Promise<Plan> {
  const { seedRows } = compared.seed;
  const { settings, request } = campaign;
  switch (arm) {
    case "auggpt": {
      const shares = apportion(
        seedRows.map(() => 1),
        compared.writeCalls,
      );
      const counts = new Map(seedRows.map((row, index) => [row.id, shares[index] ?? 0]));
      return {
        counts,
        kept: counts,
        attemptsPerRow: 1,
        style: WriteStyle.REPHRASE,
        teacherProfile: request.teacherProfile,
        checksLabels: false,
      };
    }
    case "random": {
      const counts = new Map<string, number>();
      for (let call = 0; call < compared.writeCalls; call += 1) {
        const id = seedRows[derivedSeed(settings.seed, "random_arm", call) % seedRows.length]?.id ?? "";
        counts.set(id, (counts.get(id) ?? 0) + 1);
      }
      return {
        counts,
        kept: counts,
        attemptsPerRow: 1,
        style: WriteStyle.UNSPECIFIED,
        teacherProfile: request.teacherProfile,
        checksLabels: true,
      };
    }
    case "oracle": {
      const kept = await grownBySeedRow(campaign, compared);
      return {
        // Some will repeat a row that is there.
        counts: new Map([...kept].map(([id, rows]) => [id, Math.ceil(rows * oracleSurplus)])),
        kept,
        attemptsPerRow: settings.attemptsPerRow,
        style: WriteStyle.UNSPECIFIED,
        teacherProfile: settings.oracleTeacherProfile,
        checksLabels: false,
      };
    }
  }
}

/** Seed row id → rows that the campaign made of it, and its student learned from. */
async function grownBySeedRow(campaign: Campaign, { grown, seed }: Compared): Promise<Map<string, number>> {
  const trainRows = ({ id }: Version) =>
    rowsOf(campaign.services, campaign.projectId, id, Split.TRAIN, campaign.signal);
  const before = new Set((await trainRows(seed.version)).map(({ id }) => id));
  const leftOut = new Set(grown.leftOut);
  const counts = new Map<string, number>();
  for (const { id, origin, rootRowId } of await trainRows(grown.version)) {
    if (origin !== RowOrigin.SYNTHETIC || before.has(id) || leftOut.has(rootRowId)) continue;
    // A row that somebody corrected stands for the one that it was.
    const seedRowId = grown.grewFrom.get(rootRowId) ?? rootRowId;
    counts.set(seedRowId, (counts.get(seedRowId) ?? 0) + 1);
  }
  return counts;
}

/** Variants of seed rows without a teacher, as many as the campaign made rows, spread evenly (Wei and Zou 2019). */
export async function edaRows(campaign: Campaign, prefix: string, compared: Compared): Promise<Made> {
  const { seedRows } = compared.seed;
  const texts = seedRows.filter(({ messages }) => messages.length === 0);
  if (texts.length === 0) return { leftOut: "Conversations are not varied word by word." };
  const made = [...(await grownBySeedRow(campaign, compared)).values()].reduce((sum, count) => sum + count, 0);
  if (made === 0) return { leftOut: "The campaign itself made no rows to compare with." };
  const shares = apportion(
    texts.map(() => 1),
    made,
  );
  const synonyms = await wordNet();
  const known = new Set(seedRows.map((row) => heldOutText(rowText(row))));
  const isNew = (input: string) => {
    const text = heldOutText(input);
    if (known.has(text)) return false;
    known.add(text);
    return true;
  };
  const variants = texts.map((row, index) => {
    const random = randomStream(campaign.settings.seed, "eda", row.id);
    const share = shares[index] ?? 0;
    const inputs = edaTexts(row.input, 2 * share + 2, random, synonyms).filter(isNew);
    return inputs.map((input, place) => ({
      row: newRow({ input, messages: [], output: row.output, seedRowId: row.id }, row, 0, { arm: "eda" }),
      isSurplus: place >= share,
    }));
  });
  const overlaps = await overlapsOf(
    campaign,
    prefix,
    compared.seed.version,
    variants.flat().map((one) => one.row),
  );
  const kept = variants.flat().filter((_, place) => overlaps[place]?.kind === OverlapKind.UNSPECIFIED);
  // A text with little to change leaves its share to others.
  const rows = [...kept.filter((one) => !one.isSurplus), ...kept.filter((one) => one.isSurplus)]
    .slice(0, made)
    .map((one) => one.row);
  return await grow(campaign, prefix, compared, rows);
}

/** Appends an arm's rows to the seed rows, as a version of its own in the campaign's dataset. */
async function grow(campaign: Campaign, prefix: string, { seed }: Compared, rows: Row[]): Promise<Made> {
  if (rows.length === 0) return { leftOut: "None of its rows was accepted." };
  const step = `${prefix}/commit`;
  const { versionId } = await campaign.step(step, async () => ({
    versionId: (await append(campaign, step, seed.version, rows, true)).id,
  }));
  const { services, projectId, signal } = campaign;
  const version = await whileAway(signal, () => services.datasets.getVersion({ projectId, id: versionId }, { signal }));
  return { version, rows: rows.length };
}
