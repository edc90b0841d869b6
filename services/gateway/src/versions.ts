/** /v1/versions/{version}/diff, overlaps and rows/{row}/lineage: what changed, what splits share, where a row comes from. */
import { TutelageError } from "@tutelage/platform/errors";
import { type ListOverlapsResponse, RowChangeKind } from "@tutelage/proto/datasets/v1/datasets";
import { RowOrigin } from "@tutelage/proto/task/v1/task";
import { z } from "zod";
import type { Backends } from "./backends.js";
import { candidatePage } from "./campaign-schemas.js";
import { snake } from "./cases.js";
import * as schema from "./dataset-schemas.js";
import { versionId, versionRef } from "./datasets.js";
import { problems, projectId } from "./fields.js";
import type { Routes } from "./routes.js";
import { clientGone } from "./streams.js";

const tags = ["datasets"];
/** Half a million rows take minutes. */
const overlapsDeadlineMs = 1_800_000;

const rowLineage = z
  .object({
    row: schema.rowSchema.optional(),
    ancestors: z
      .array(schema.rowSchema)
      .describe("Its parent, the parent's parent, and so on; the seed row is the last"),
    children: z.array(schema.rowSchema).describe("Rows that were written from it; the first 1000"),
    child_count: z.number().int(),
    descendant_count: z.number().int().describe("Rows that grew from it, over however many generations"),
    added_in: schema.versionSchema.optional().describe("The version that added it"),
    made_by: z
      .object({
        campaign_id: z.string(),
        campaign_name: z.string(),
        candidate: candidatePage.shape.candidates.element
          .optional()
          .describe("With its verdicts; call_id is in the campaign's ledger"),
      })
      .optional()
      .describe("The candidate that it was; only for rows that a campaign made"),
  })
  .meta({ id: "RowLineage" });

export const versionRoutes: Routes = (app, { backends, shutdown }) => {
  const { datasets } = backends;

  app.get(
    "/versions/:version/diff",
    {
      schema: {
        tags,
        summary: "What a version has that another has not, and the reverse",
        description:
          "Rows are compared by their ids, which are digests of their content: a row whose label was mended is one " +
          "removed and one added.",
        params: versionRef,
        querystring: schema.diffQuery,
        response: { 200: schema.versionDiff, ...problems },
      },
    },
    async ({ params, query }) =>
      snake(
        await datasets.diffVersions({
          projectId,
          versionId: versionId(params.version),
          againstVersionId: query.against ?? "",
          kind: query.change ?? RowChangeKind.UNSPECIFIED,
          pageSize: query.limit,
          cursor: query.cursor,
        }),
      ),
  );

  app.get(
    "/versions/:version/overlaps",
    {
      schema: {
        tags,
        summary: "Rows of a split that say what a row of another split says",
        description: "Train rows against dev and test rows, and dev rows against test rows.",
        params: versionRef,
        querystring: schema.overlapsQuery,
        response: { 200: schema.versionOverlaps, ...problems },
      },
    },
    async ({ params, query }, reply) => {
      const which = { projectId, versionId: versionId(params.version) };
      const options = { deadline: overlapsDeadlineMs, signal: clientGone(reply, shutdown) };
      const found: ListOverlapsResponse = { overlaps: [], counts: [] };
      for await (const { overlaps, counts } of datasets.listOverlaps(which, options)) {
        found.overlaps.push(...overlaps.slice(0, query.limit - found.overlaps.length));
        found.counts = counts;
      }
      return snake(found);
    },
  );

  app.get(
    "/versions/:version/rows/:row/lineage",
    {
      schema: {
        tags,
        summary: "Where a row comes from, and what grew from it",
        params: versionRef.extend({ row: z.string().describe("Id of the row") }),
        response: { 200: rowLineage, ...problems },
      },
    },
    async ({ params }) => {
      const which = { projectId, versionId: versionId(params.version), rowId: params.row };
      const lineage = await datasets.getRowLineage(which);
      const isSynthetic = lineage.row?.origin === RowOrigin.SYNTHETIC;
      const datasetId = lineage.addedIn?.datasetId ?? "";
      return snake({ ...lineage, madeBy: isSynthetic ? await maker(backends, datasetId, params.row) : undefined });
    },
  );
};

/** The campaign's candidate that a row was; undefined where no campaign made it. */
async function maker({ campaigns }: Backends, datasetId: string, rowId: string) {
  try {
    return await campaigns.getCandidateOfRow({ projectId, datasetId, rowId });
  } catch (error) {
    if (error instanceof TutelageError && error.code === "not_found") return undefined;
    throw error;
  }
}
