/**
 * Decontamination: what is trained on must not say what is measured on. The
 * user's own rows are looked through once, before the teacher is asked; each
 * candidate before it can become a row. Which text says what another one says is
 * known to the datasets service, where the rows are.
 */
import { comparedText } from "@tutelage/platform/conversation";
import { TutelageError } from "@tutelage/platform/errors";
import { splitName } from "@tutelage/platform/rowfile";
import { type Candidate, HeldOutOverlaps, type SplitOverlaps } from "@tutelage/proto/campaigns/v1/campaigns";
import { type Overlap, OverlapKind, type Version } from "@tutelage/proto/datasets/v1/datasets";
import { Split } from "@tutelage/proto/task/v1/task";
import type { Campaign } from "./campaign.js";
import { whileAway } from "./clients.js";
import { textBatches } from "./textbatches.js";

/** A report names no more rows. */
const namedOverlaps = 1_000;
/** An event names no more train rows. */
const namedRows = 100;
/** Of the user's own rows: 500,000 take minutes. */
const splitsDeadlineMs = 3_600_000;
/** Of one message of texts. */
const textsDeadlineMs = 600_000;

/** The step that compares the user's splits. */
export const splitsStep = "overlaps";

/** What it stores. */
export type StoredSplitOverlaps = Omit<SplitOverlaps, "droppedRows"> & { droppedRowIds: string[] };

/** Compares the user's splits, says what was found, and gives the ids of the train rows to leave out. */
export async function checkSplits(campaign: Campaign, version: Version): Promise<string[]> {
  const { services, projectId, signal } = campaign;
  // A campaign that an earlier release stored has no such setting.
  const setting = campaign.firstSettings.heldOutOverlaps ?? HeldOutOverlaps.WARN;
  const found = await campaign.step(
    splitsStep,
    () =>
      whileAway(signal, async () => {
        const stored: StoredSplitOverlaps = { counts: [], overlaps: [], droppedRowIds: [] };
        const dropped = new Set<string>();
        const which = { projectId, versionId: version.id };
        const options = { signal, deadline: splitsDeadlineMs };
        for await (const { overlaps, counts } of services.datasets.listOverlaps(which, options)) {
          stored.overlaps.push(...overlaps.slice(0, namedOverlaps - stored.overlaps.length));
          stored.counts = counts;
          if (setting !== HeldOutOverlaps.DROP) continue;
          for (const { rowId, split } of overlaps) if (split === Split.TRAIN) dropped.add(rowId);
        }
        return { ...stored, droppedRowIds: [...dropped] };
      }),
    async (transaction, { counts, overlaps, droppedRowIds }) => {
      if (counts.length === 0) return;
      await campaign.store.putEvent(transaction, campaign.key, "rows.contaminated", {
        counts: counts.map(({ split, against, kind, rows }) => ({
          split: splitName(split),
          against: splitName(against),
          kind: kindName(kind),
          rows,
        })),
        row_ids: [...new Set(overlaps.map(({ rowId }) => rowId))].slice(0, namedRows),
        dropped_rows: droppedRowIds.length,
      });
    },
  );
  if (setting === HeldOutOverlaps.REFUSE && found.counts.length > 0) throw contaminated(found);
  return found.droppedRowIds;
}

/**
 * For each candidate that is still open, the held-out row that it says again.
 * @param prefix what the step's name begins with
 */
export async function overlapsOf(
  campaign: Campaign,
  prefix: string,
  version: Version,
  open: readonly Pick<Candidate, "input" | "messages" | "output">[],
): Promise<Overlap[]> {
  return await campaign.step(`${prefix}/novelty/overlaps`, async () => {
    if (open.length === 0) return [];
    const { projectId, signal } = campaign;
    const requests = textBatches(open.map(comparedText)).map((texts) => ({ projectId, versionId: version.id, texts }));
    return await whileAway(signal, async () => {
      const measured: Overlap[] = [];
      const answers = campaign.services.datasets.measureOverlaps(
        (async function* () {
          yield* requests;
        })(),
        { signal, deadline: textsDeadlineMs * requests.length },
      );
      for await (const { overlaps } of answers) measured.push(...overlaps);
      return measured;
    });
  });
}

/** How many candidates were rejected for their overlap, by its kind. */
export function overlapsByKind(decided: readonly Pick<Candidate, "rejection" | "overlap">[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { rejection, overlap } of decided) {
    if (rejection !== "held_out_overlap" || overlap === undefined) continue;
    const kind = kindName(overlap.kind);
    counts[kind] = (counts[kind] ?? 0) + 1;
  }
  return counts;
}

/** A candidate as a report may show it: what says a held-out row again is that row's text in all but name. */
export function withoutHeldOutText(candidate: Candidate): Candidate {
  return candidate.rejection === "held_out_overlap" ? { ...candidate, input: "", messages: [] } : candidate;
}

/** What a report shows of the splits. */
export function shownSplitOverlaps(stored: StoredSplitOverlaps | undefined): SplitOverlaps | undefined {
  if (stored === undefined) return undefined;
  const { droppedRowIds, ...shown } = stored;
  return { ...shown, droppedRows: droppedRowIds.length };
}

function contaminated({ counts, overlaps }: StoredSplitOverlaps): TutelageError {
  const told = counts.map(
    ({ split, against, kind, rows }) => `${rows} ${splitName(split)} against ${splitName(against)} (${kindName(kind)})`,
  );
  const [first] = overlaps;
  return new TutelageError(
    "failed_precondition",
    `Rows say what rows of another split say: ${told.join(", ")}; the first is row ${first?.rowId}, as row ` +
      `${first?.overlap?.rowId}. Import the data with each text in one split only, or set held_out_overlaps to "drop", ` +
      'which leaves such train rows out, or to "warn".',
    { reason: "split_overlap" },
  );
}

function kindName(kind: OverlapKind): string {
  const name = Object.entries(OverlapKind).find(([, value]) => value === kind)?.[0] ?? "";
  return name.toLowerCase();
}
