/** /v1/datasets/{dataset}/import: a file becomes a version. */
import type { Readable } from "node:stream";
import { TutelageError } from "@tutelage/platform/errors";
import {
  FileFormat,
  FileLayout,
  type ImportHeader,
  type ImportRowsRequest,
} from "@tutelage/proto/datasets/v1/datasets";
import type { FastifyRequest } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { snake } from "./cases.js";
import * as schema from "./dataset-schemas.js";
import { datasetRef, findDataset } from "./datasets.js";
import { idempotencyHeaders, problems, projectId } from "./fields.js";
import { isMultipart, uploadedFile } from "./multipart.js";
import { sendProblem } from "./problem.js";
import type { Routes } from "./routes.js";
import { clientGone } from "./streams.js";

/** An import may take as long as a slow uplink takes for the largest file. */
const importDeadlineMs = 1_800_000;
const chunkBytes = 256 * 1024;
const tags = ["datasets"];
/** Files of a layout are JSON Lines, CSV and others. */
const anyFile = "application/octet-stream";

export const importRoutes: Routes = (app, { backends, shutdown, maxImportBytes }) => {
  const { datasets } = backends;

  // A scope of its own: no other route takes a body that a web page's form can send.
  app.register(async (scope) => {
    scope.addContentTypeParser([anyFile, "multipart/form-data"], (_request, payload, done) => done(null, payload));
    const typed = scope.withTypeProvider<ZodTypeProvider>();

    typed.post(
      "/datasets/:dataset/import",
      {
        schema: {
          tags,
          summary: "Import rows as a new version",
          description:
            "The body is the file: JSON Lines as application/x-ndjson, or CSV with a header row as text/csv; or a " +
            "multipart/form-data with the file as its only part, whose content type or name ending (.jsonl, .ndjson, " +
            '.csv) says which. A JSON row has "input", or "messages" (a conversation that ends with the user\'s message), and ' +
            '"output"; or the usual form of chat fine-tuning, "messages" whose last is the assistant\'s answer. ' +
            "With a layout the file is one that a public task is published in, and may come as application/octet-stream. " +
            "Bad rows are listed and left out, unless strict refuses all. 200 instead of 201 when an append brought only " +
            "rows that are there already: the version is the newest one, unchanged.",
          consumes: ["application/x-ndjson", "text/csv", "multipart/form-data", anyFile],
          params: datasetRef,
          querystring: schema.importQuery,
          headers: idempotencyHeaders,
          response: { 200: schema.importResult, 201: schema.importResult, ...problems },
        },
      },
      async (request, reply) => {
        const { id } = await findDataset(backends, request.params.dataset);
        const { layout, default_split, labels, fields, ...query } = request.query;
        const file = await fileOf(request, layout !== FileLayout.UNSPECIFIED);
        const header: ImportHeader = {
          projectId,
          datasetId: id,
          idempotencyKey: request.headers["idempotency-key"],
          format: file.format,
          inputColumn: query.input_column,
          outputColumn: query.output_column,
          splitColumn: query.split_column,
          defaultSplit: default_split,
          strict: query.strict,
          allowedLabels: labels,
          fields,
          append: query.append,
          layout,
        };
        // The service may refuse the header before a byte of the file is read.
        const result = await datasets
          .importRows(importParts(header, file.chunks, maxImportBytes), {
            deadline: importDeadlineMs,
            signal: clientGone(reply, shutdown),
          })
          .finally(file.drain);
        if (result.version !== undefined) return reply.code(result.importedRows > 0 ? 201 : 200).send(snake(result));
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
          extra: snake({
            importedRows: result.importedRows,
            rejectedRows: result.rejectedRows,
            rejects: result.rejects,
          }),
        });
      },
    );
  });
};

interface ImportedFile {
  format: FileFormat;
  chunks: AsyncIterable<Buffer> | Iterable<Buffer>;
  /** Lets come and drops what nobody has read. */
  drain(): void;
}

/**
 * Bytes as they come. Who stops early leaves the rest to be sent and dropped: a
 * request that is destroyed instead leaves a connection that never closes.
 */
async function* bytesOf(body: Readable): AsyncGenerator<Buffer> {
  try {
    yield* body.iterator({ destroyOnReturn: false });
  } finally {
    body.resume();
  }
}

/** The file that a request brings: its body, or the part of it that is a file. A layout says itself how it is written. */
async function fileOf(request: FastifyRequest, hasLayout: boolean): Promise<ImportedFile> {
  const body = request.body as Readable | undefined;
  const { headers } = request.raw;
  if (body !== undefined && isMultipart(headers["content-type"])) {
    const { contentType, name, chunks, drain } = await uploadedFile(headers, body);
    const format = hasLayout ? FileFormat.UNSPECIFIED : (formatOfType(contentType) ?? formatOfName(name));
    if (format !== undefined) return { format, chunks, drain };
    drain();
    throw unknownFormat(
      `"${name}" (${contentType}) may be JSON Lines or CSV: name it .jsonl or .csv.`,
      "file",
      "has neither a known content type nor a known ending; name it .jsonl or .csv, or say its layout.",
    );
  }
  const contentType = (headers["content-type"] ?? "").toLowerCase();
  if (!hasLayout && contentType.startsWith(anyFile)) {
    body?.resume();
    const why = "does not say how the file is written; send application/x-ndjson or text/csv, or say its layout.";
    throw unknownFormat(`${anyFile} ${why}`, "content-type", why);
  }
  return {
    format: hasLayout ? FileFormat.UNSPECIFIED : (formatOfType(contentType) ?? FileFormat.JSONL),
    chunks: body === undefined ? [] : bytesOf(body),
    drain: () => body?.resume(),
  };
}

function unknownFormat(message: string, field: string, description: string): TutelageError {
  return new TutelageError("invalid_argument", message, {
    reason: "unknown_file_format",
    fields: [{ field, description }],
  });
}

function formatOfType(contentType: string): FileFormat | undefined {
  if (/^text\/csv\b/i.test(contentType)) return FileFormat.CSV;
  return /^application\/(x-ndjson|jsonl)\b/i.test(contentType) ? FileFormat.JSONL : undefined;
}

function formatOfName(name: string): FileFormat | undefined {
  if (/\.csv$/i.test(name)) return FileFormat.CSV;
  return /\.(jsonl|ndjson)$/i.test(name) ? FileFormat.JSONL : undefined;
}

/** The header, then the body in chunks as they come, one in memory at a time, then the end of a body that came whole. */
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
  yield { part: { $case: "end", value: { sizeBytes: bytes } } };
}

function tooLarge(maxBytes: number): Error {
  return Object.assign(new Error(`A file may have at most ${maxBytes} bytes; send it in parts with append=true.`), {
    statusCode: 413,
    code: "FST_ERR_CTP_BODY_TOO_LARGE",
  });
}
