/** /v1/datasets and /v1/versions. */
import { notFound } from "@tutelage/platform/errors";
import { isUuid } from "@tutelage/platform/runs";
import {
  type Dataset,
  FileFormat,
  type ImportHeader,
  type ImportRowsRequest,
} from "@tutelage/proto/datasets/v1/datasets";
import { RowOrigin, Split } from "@tutelage/proto/task/v1/task";
import { z } from "zod";
import type { Backends } from "./backends.js";
import { snake } from "./cases.js";
import * as schema from "./dataset-schemas.js";
import { idempotencyHeaders, pageQuery, problems, projectId, streamed } from "./fields.js";
import { sendProblem } from "./problem.js";
import type { Routes } from "./routes.js";
import { byteStream, clientGone, started } from "./streams.js";

/** An import may take as long as a slow uplink takes for the largest file. */
const importDeadlineMs = 1_800_000;
const exportDeadlineMs = 1_800_000;
const chunkBytes = 256 * 1024;

const tags = ["datasets"];
const datasetRef = z.object({ dataset: z.string().describe("Id or name") });
const versionRef = z.object({ version: z.string().describe("Id") });

export const datasetRoutes: Routes = (app, { backends, shutdown, maxImportBytes }) => {
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

  app.post(
    "/datasets/:dataset/import",
    {
      schema: {
        tags,
        summary: "Import rows as a new version",
        description:
          "The body is the file: JSON Lines as application/x-ndjson, or CSV with a header row as text/csv. " +
          'A JSON row has "input", or "messages" (a conversation that ends with the user\'s message), and "output"; or the ' +
          'usual form of chat fine-tuning, "messages" whose last is the assistant\'s answer. ' +
          "Bad rows are listed and left out, unless strict refuses all.",
        consumes: ["application/x-ndjson", "text/csv"],
        params: datasetRef,
        querystring: schema.importQuery,
        headers: idempotencyHeaders,
        response: { 201: schema.importResult, ...problems },
      },
    },
    async (request, reply) => {
      const { id } = await findDataset(backends, request.params.dataset);
      const { default_split, labels, fields, ...query } = request.query;
      const header: ImportHeader = {
        projectId,
        datasetId: id,
        idempotencyKey: request.headers["idempotency-key"],
        format: formatOf(request.headers["content-type"]),
        inputColumn: query.input_column,
        outputColumn: query.output_column,
        splitColumn: query.split_column,
        defaultSplit: default_split,
        strict: query.strict,
        allowedLabels: labels,
        fields,
        append: query.append,
      };
      const body = request.body as AsyncIterable<Buffer> | undefined;
      const result = await datasets.importRows(importParts(header, body ?? [], maxImportBytes), {
        deadline: importDeadlineMs,
        signal: clientGone(reply, shutdown),
      });
      if (result.version !== undefined) return reply.code(201).send(snake(result));
      return sendProblem(request, reply, {
        status: 422,
        title: "Nothing was imported",
        detail:
          result.rejectedRows === 0
            ? "The file has no rows."
            : `${result.rejectedRows} bad row(s)${query.strict ? ", and strict refuses the whole file" : " and no good one"}.`,
        reason: result.rejectedRows === 0 ? "empty_file" : "rows_rejected",
        errors: result.rejects.slice(0, 100).map(({ line, field, message }) => ({
          field: field === "" ? `line ${line}` : `line ${line}: ${field}`,
          description: message,
        })),
        extra: snake({ importedRows: result.importedRows, rejectedRows: result.rejectedRows, rejects: result.rejects }),
      });
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

function versionId(id: string): string {
  if (!isUuid(id)) throw notFound("dataset version", id);
  return id;
}

function formatOf(contentType: string | undefined): FileFormat {
  return contentType?.startsWith("text/csv") ? FileFormat.CSV : FileFormat.JSONL;
}

/** The header, then the body in chunks as they come; one chunk is in memory at a time. */
async function* importParts(
  header: ImportHeader,
  body: AsyncIterable<Buffer> | Iterable<Buffer>,
  maxBytes: number,
): AsyncGenerator<ImportRowsRequest> {
  yield { part: { $case: "header", value: header } };
  let bytes = 0;
  for await (const piece of body) {
    bytes += piece.byteLength;
    if (bytes > maxBytes) throw tooLarge(maxBytes);
    for (let start = 0; start < piece.byteLength; start += chunkBytes) {
      yield { part: { $case: "chunk", value: piece.subarray(start, start + chunkBytes) } };
    }
  }
}

function tooLarge(maxBytes: number): Error {
  return Object.assign(new Error(`A file may have at most ${maxBytes} bytes; send it in parts with append=true.`), {
    statusCode: 413,
    code: "FST_ERR_CTP_BODY_TOO_LARGE",
  });
}

async function* chunksOf(items: AsyncIterable<{ chunk: Uint8Array }>): AsyncGenerator<Uint8Array> {
  for await (const { chunk } of items) yield chunk;
}
