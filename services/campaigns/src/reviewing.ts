/** What the loop makes of rows in doubt: opens their reviews, waits for them, and does as was decided. */
import { rowText } from "@tutelage/platform/conversation";
import { Rest } from "@tutelage/platform/rest";
import {
  Disputes,
  type Review,
  type ReviewEvidence,
  ReviewKind,
  ReviewStatus,
  SeedAudit,
} from "@tutelage/proto/campaigns/v1/campaigns";
import type { Version } from "@tutelage/proto/datasets/v1/datasets";
import { type Row, RowOrigin, Split } from "@tutelage/proto/task/v1/task";
import type { Campaign, SeedData } from "./campaign.js";
import { rowsOf, whileAway } from "./clients.js";
import { append } from "./commit.js";
import type { MinedRow } from "./mining.js";
import { noteNewRow, takeDecided } from "./reviewstore.js";
import type { Doubt } from "./seedaudit.js";

/** With which code a campaign rests until its reviews are decided. */
export const reviewsOpen = "reviews_open";

/** In a relabelled row's metadata, the id of the row that it was. */
const formerRow = "relabelled_from";

/** What somebody decided of a row, as an iteration took it up. */
export type TakenDecision = Pick<Review, "seedRowId" | "status" | "output" | "reading">;

/** What a review is opened with, or what is added to one. */
export interface Finding {
  kind: ReviewKind;
  row: Row;
  evidence: ReviewEvidence;
  proposedOutput: string;
}

/** All decisions that the loop has taken up. Each is made once: a decided row is neither doubted nor set aside again. */
export class Decisions {
  private readonly taken = new Map<string, TakenDecision>();
  /** After the row that it became, the row that it was. */
  readonly grewFrom = new Map<string, string>();
  /** Something was doubted so far: only then may there be decisions. */
  opened = false;

  take(decisions: readonly TakenDecision[]): void {
    for (const one of decisions) this.taken.set(one.seedRowId, one);
  }

  /** Rows that are not doubted any more. */
  get settled(): ReadonlySet<string> {
    return new Set([...this.taken.keys(), ...this.grewFrom.keys()]);
  }

  /** Which reading decides the disputes of single rows. */
  get readings(): ReadonlyMap<string, Disputes> {
    const accepted = [...this.taken.values()].filter(({ reading }) => reading !== Disputes.UNSPECIFIED);
    return new Map(accepted.map(({ seedRowId, reading }) => [seedRowId, reading]));
  }

  /** Rows that are not learned from any more, nor is what was written from them. */
  get leftOut(): ReadonlySet<string> {
    const gone = [...this.taken.values()].filter(({ status }) => status !== ReviewStatus.ACCEPTED);
    return new Set(gone.map(({ seedRowId }) => seedRowId));
  }

  /** The rows that are learned from. */
  keep(rows: readonly Row[]): Row[] {
    const { leftOut } = this;
    return rows.filter((row) => !leftOut.has(row.id) && !leftOut.has(row.rootRowId));
  }
}

/** What an iteration found, in the order of the rows. */
export function findings(iteration: number, mined: readonly MinedRow[], doubted: readonly Doubt[]): Finding[] {
  const doubtOf = new Map(doubted.map((doubt) => [doubt.rowId, doubt]));
  return mined.flatMap((one): Finding[] => {
    const doubt = doubtOf.get(one.row.id);
    if (doubt !== undefined) {
      const { students, teacher, proposedOutput } = doubt;
      const evidence = { iteration, students, teacher, text: "", strictCorrect: false };
      return [{ kind: ReviewKind.LABEL, row: one.row, evidence, proposedOutput }];
    }
    if (!one.disputed || one.row.origin !== RowOrigin.SEED) return [];
    const students = { answer: one.answer };
    const evidence = { iteration, students, teacher: undefined, text: one.text, strictCorrect: one.correct };
    return [{ kind: ReviewKind.DISPUTE, row: one.row, evidence, proposedOutput: "" }];
  });
}

/**
 * Takes up what was decided since the iteration before. Throws Rest where the
 * campaign waits and something is open. The step's output is what counts from
 * then on: who goes on with the campaign, and its forks, do the same.
 */
export async function takeDecisions(campaign: Campaign, iteration: number): Promise<TakenDecision[]> {
  await campaign.enter(iteration, "review");
  return await campaign.step(`iteration/${iteration}/reviews`, async () => {
    if (campaign.settings.seedAudit === SeedAudit.WAIT) {
      const open = await campaign.store.openReviews(campaign.key);
      if (open > 0) {
        const message =
          `${open} seed rows wait for a decision: accept, relabel or exclude each of them ` +
          `(POST /v1/campaigns/${campaign.key.campaignId}/reviews/{seed_row_id}). The campaign goes on by itself after the last.`;
        throw new Rest("PAUSED", reviewsOpen, message);
      }
    }
    // Marked before they are stored as the step's: after that nobody changes them, and a successor finds the same.
    return await campaign.lease.write((transaction) => takeDecided(transaction, campaign.key, iteration));
  });
}

/** The version with the rows that the decisions of an iteration give another output. */
export async function relabel(
  campaign: Campaign,
  iteration: number,
  version: Version,
  trainRows: readonly Row[],
  taken: readonly TakenDecision[],
  decisions: Decisions,
): Promise<Version> {
  const rowOf = new Map(trainRows.map((row) => [row.id, row]));
  const contentOf = (row: Row) => JSON.stringify([rowText(row), row.output]);
  const contents = new Set(decisions.keep(trainRows).map(contentOf));
  const mended = taken.flatMap(({ seedRowId, status, output }) => {
    const row = rowOf.get(seedRowId);
    if (row === undefined || status !== ReviewStatus.RELABELLED) return [];
    // Names the row that it was, and is another row even where one is given back the output that it once had.
    return [{ seedRowId, row: { ...row, id: "", output, metadata: { ...row.metadata, [formerRow]: row.id } } }];
  });
  const added = mended.filter(({ row }) => {
    // A row that is there with this output already needs no second one.
    const content = contentOf(row);
    const isNew = !contents.has(content);
    contents.add(content);
    return isNew;
  });
  if (added.length === 0) return version;
  const { services, projectId, signal } = campaign;
  const step = `iteration/${iteration}/relabel`;
  const { versionId, newRowIds } = await campaign.step(
    step,
    async () => {
      const rows = added.map(({ row }) => row);
      const appended = await append(campaign, step, version, rows);
      const seedRows = await rowsOf(services, projectId, appended.id, Split.TRAIN, signal);
      const idOf = new Map(seedRows.map((row) => [row.metadata[formerRow], row.id]));
      return { versionId: appended.id, newRowIds: added.map(({ seedRowId }) => idOf.get(seedRowId) ?? "") };
    },
    async (transaction, output) => {
      for (const [index, { seedRowId }] of added.entries()) {
        await noteNewRow(transaction, campaign.key, seedRowId, output.newRowIds[index] ?? "");
      }
    },
  );
  for (const [index, { seedRowId }] of added.entries()) decisions.grewFrom.set(newRowIds[index] ?? "", seedRowId);
  return await whileAway(signal, () => services.datasets.getVersion({ projectId, id: versionId }, { signal }));
}

/** The seed rows as they are learned from after decisions. */
export function corrected(seed: SeedData, trainRows: readonly Row[], decisions: Decisions): SeedData {
  return {
    ...seed,
    seedRows: trainRows.filter((row) => row.origin === RowOrigin.SEED),
    leftOut: [...decisions.leftOut].sort(),
    grewFrom: new Map(decisions.grewFrom),
  };
}
