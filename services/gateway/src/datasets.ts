/** /v1/datasets and /v1/versions. */
import { notFound } from "@tutelage/platform/errors";
import { isUuid } from "@tutelage/platform/runs";
import type { Dataset } from "@tutelage/proto/datasets/v1/datasets";
import { RowOrigin, Split } from "@tutelage/proto/task/v1/task";
import { z } from "zod";
import type { Backends } from "./backends.js";
import { snake } from "./cases.js";
import * as schema from "./dataset-schemas.js";
import { pageQuery, problems, projectId, streamed } from "./fields.js";
import type { Routes } from "./routes.js";
import { byteStream, clientGone, started } from "./streams.js";

const exportDeadlineMs = 1_800_000;

const tags = ["datasets"];
export const datasetRef = z.object({ dataset: z.string().describe("Id or name") });
export const versionRef = z.object({ version: z.string().describe("Id") });

export const datasetRoutes: Routes = (app, { backends, shutdown }) => {
  const { datasets } = backends;

  app.post(
    "/datasets",
    {
      schema: {
        tags,
        summary: "Make an empty dataset",
        body: z.strictObject({ name: schema.datasetName }),
        response: { 201: schema.datasetSchema, ...problems },
      },
    },
    async (request, reply) => {
      const dataset = await datasets.createDataset({ projectId, name: request.body.name });
      return reply.code(201).header("location", `/v1/datasets/${dataset.id}`).send(snake(dataset));
    },
  );

  app.get(
    "/datasets",
    {
      schema: {
        tags,
        summary: "All datasets, newest first",
        querystring: z.strictObject(pageQuery),
        response: { 200: schema.datasetPage, ...problems },
      },
    },
    async ({ query }) => snake(await datasets.listDatasets({ projectId, pageSize: query.limit, cursor: query.cursor })),
  );

  app.get(
    "/datasets/:dataset",
    {
      schema: {
        tags,
        summary: "One dataset",
        params: datasetRef,
        response: { 200: schema.datasetSchema, ...problems },
      },
    },
    async ({ params }) => snake(await findDataset(backends, params.dataset)),
  );

  app.get(
    "/datasets/:dataset/versions",
    {
      schema: {
        tags,
        summary: "A dataset's versions, newest first",
        params: datasetRef,
        querystring: z.strictObject(pageQuery),
        response: { 200: schema.versionPage, ...problems },
      },
    },
    async ({ params, query }) => {
      const { id } = await findDataset(backends, params.dataset);
      return snake(
        await datasets.listVersions({ projectId, datasetId: id, pageSize: query.limit, cursor: query.cursor }),
      );
    },
  );

  app.get(
    "/versions/:version",
    {
      schema: {
        tags,
        summary: "One version of a dataset",
        params: versionRef,
        response: { 200: schema.versionSchema, ...problems },
      },
    },
    async ({ params }) => snake(await datasets.getVersion({ projectId, id: versionId(params.version) })),
  );

  app.get(
    "/versions/:version/rows",
    {
      schema: {
        tags,
        summary: "A version's rows, in order",
        params: versionRef,
        querystring: schema.rowsQuery,
        response: { 200: schema.rowPage, ...problems },
      },
    },
    async ({ params, query }) =>
      snake(
        await datasets.listRows({
          projectId,
          versionId: versionId(params.version),
          split: query.split ?? Split.UNSPECIFIED,
          origin: query.origin ?? RowOrigin.UNSPECIFIED,
          output: query.output,
          rootRowId: query.root,
          iteration: query.iteration,
          text: query.contains,
          pageSize: query.limit,
          cursor: query.cursor,
        }),
      ),
  );

  app.get(
    "/versions/:version/export",
    {
      schema: {
        tags,
        summary: "A version's rows as JSON Lines",
        params: versionRef,
        querystring: schema.exportQuery,
        response: {
          200: streamed("application/x-ndjson", "JSON Lines"),
          ...problems,
        },
      },
    },
    async ({ params, query }, reply) => {
      const request = { projectId, versionId: versionId(params.version), split: query.split ?? Split.UNSPECIFIED };
      const options = { deadline: exportDeadlineMs, signal: clientGone(reply, shutdown) };
      const { items } = await started(datasets.exportRows(request, options));
      reply.type("application/x-ndjson");
      reply.header("content-disposition", `attachment; filename="${request.versionId}.jsonl"`);
      return reply.send(byteStream(chunksOf(items)));
    },
  );
};

/** By id or by name. */
export async function findDataset({ datasets }: Pick<Backends, "datasets">, idOrName: string): Promise<Dataset> {
  return await datasets.getDataset(
    isUuid(idOrName) ? { projectId, id: idOrName, name: "" } : { projectId, id: "", name: idOrName },
  );
}

export function versionId(id: string): string {
  if (!isUuid(id)) throw notFound("dataset version", id);
  return id;
}

async function* chunksOf(items: AsyncIterable<{ chunk: Uint8Array }>): AsyncGenerator<Uint8Array> {
  for await (const { chunk } of items) yield chunk;
}
