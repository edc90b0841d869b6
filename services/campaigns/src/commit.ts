/** Judged candidates become rows of the next version. */
import { inBatches } from "@tutelage/platform/batch";
import { rowText, textLength } from "@tutelage/platform/conversation";
import type { Candidate } from "@tutelage/proto/campaigns/v1/campaigns";
import type { Version } from "@tutelage/proto/datasets/v1/datasets";
import { type Row, RowOrigin, Split } from "@tutelage/proto/task/v1/task";
import type { Campaign } from "./campaign.js";
import { rowsOf, whileAway } from "./clients.js";
import type { Round } from "./students.js";

/** Characters have at most four bytes. */
const rowsPerMessage = { mostItems: 1_000, mostSize: 8_000_000 };

/**
 * Stores the judged candidates and appends the accepted ones. Undefined when there are none, unless the training rows
 * have changed without them.
 */
export async function commit(
  campaign: Campaign,
  round: Round,
  version: Version,
  trainRows: readonly Row[],
  decided: readonly Candidate[],
  isCorrected: boolean,
): Promise<{ version: Version; trainRows: Row[] } | undefined> {
  const { services, projectId, signal } = campaign;
  const { number } = round.iteration;
  const parents = new Map(trainRows.map((row) => [row.id, row]));
  const newRows = decided.filter((one) => one.accepted).map((one) => newRow(one, parents.get(one.seedRowId), number));
  const step = `iteration/${number}/commit`;
  round.iteration.candidates = decided.length;
  round.iteration.accepted = newRows.length;
  for (const { rejection } of decided) {
    if (rejection !== "") round.iteration.rejected[rejection] = (round.iteration.rejected[rejection] ?? 0) + 1;
  }
  const { versionId } = await campaign.step(
    step,
    async () => {
      if (newRows.length === 0) return { versionId: isCorrected ? version.id : "", rowIds: [] };
      const appended = await append(campaign, step, version, newRows);
      const rows = await rowsOf(services, projectId, appended.id, Split.TRAIN, signal);
      const idOf = new Map(rows.filter((row) => row.iteration === number + 1).map((row) => [rowText(row), row.id]));
      return { versionId: appended.id, rowIds: newRows.map((row) => idOf.get(rowText(row)) ?? "") };
    },
    (transaction, { rowIds }) => {
      const ids = rowIds.values();
      const stored = decided.map((one) => (one.accepted ? { ...one, rowId: ids.next().value ?? "" } : one));
      return campaign.store.candidates.put(transaction, campaign.key, stored);
    },
  );
  if (versionId === "") return undefined;
  const grown = await whileAway(signal, () => services.datasets.getVersion({ projectId, id: versionId }, { signal }));
  return { version: grown, trainRows: await rowsOf(services, projectId, versionId, Split.TRAIN, signal) };
}

/**
 * Appends rows to a version, in the campaign's own dataset; the same step makes one version.
 * @param aside it is a comparison's, and no later reader's newest version
 */
export async function append(
  campaign: Campaign,
  step: string,
  version: Version,
  newRows: readonly Row[],
  aside = false,
): Promise<Version> {
  const { services, projectId, signal, datasetId } = campaign;
  return await whileAway(signal, () =>
    services.datasets.appendRows(
      (async function* () {
        const header = {
          projectId,
          parentVersionId: version.id,
          idempotencyKey: campaign.childKey(step),
          datasetId,
          aside,
        };
        yield { part: { $case: "header" as const, value: header } };
        for (const rows of inBatches(newRows, textLength, rowsPerMessage)) {
          yield { part: { $case: "batch" as const, value: { rows } } };
        }
        yield { part: { $case: "end" as const, value: { rowCount: newRows.length } } };
      })(),
      { signal, deadline: 600_000 },
    ),
  );
}

/** A candidate as the row that it becomes. */
export function newRow(
  candidate: Pick<Candidate, "input" | "messages" | "output" | "seedRowId">,
  parent: Row | undefined,
  iteration: number,
  metadata: Record<string, string> = {},
): Row {
  return {
    id: "",
    input: candidate.input,
    messages: candidate.messages,
    output: candidate.output,
    split: Split.TRAIN,
    origin: RowOrigin.SYNTHETIC,
    rootRowId: parent === undefined || parent.rootRowId === "" ? candidate.seedRowId : parent.rootRowId,
    parentRowId: candidate.seedRowId,
    // The iteration whose student is the first to learn from it.
    iteration: iteration + 1,
    metadata,
  };
}
