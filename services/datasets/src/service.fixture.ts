/** The service on a free port and a database of its own, and a real client; shared by the tests of this folder. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect } from "@tutelage/platform/grpc";
import {
  type AppendRowsRequest,
  DatasetsServiceDefinition,
  FileFormat,
  ImportHeader,
  type ImportRowsRequest,
  type ImportRowsResponse,
  type Version,
} from "@tutelage/proto/datasets/v1/datasets";
import { Row, RowOrigin, Split } from "@tutelage/proto/task/v1/task";
import { config } from "../../../tests/support/config.js";
import { testDatabaseUrl } from "../../../tests/support/database.js";
import { settings, start } from "./start.js";

export const project = "default";
export type Client = ReturnType<typeof connect<typeof DatasetsServiceDefinition>>;
export type Fixture = Awaited<ReturnType<typeof startFixture>>;

export async function startFixture() {
  const home = await mkdtemp(join(tmpdir(), "tutelage-datasets-"));
  const databaseUrl = await testDatabaseUrl();
  const environment = {
    TUTELAGE_HOME: home,
    DATABASE_URL: databaseUrl,
    DATASETS_LISTEN: "127.0.0.1:0",
    LOG_LEVEL: "fatal",
  };
  const service = await start(config(settings, environment));
  const client: Client = connect(DatasetsServiceDefinition, service.address);
  return {
    home,
    databaseUrl,
    environment,
    client,
    address: service.address,
    stop: async () => {
      client.close();
      await service.stop();
      await rm(home, { recursive: true, force: true });
    },
  };
}

/** An import of JSONL into the train split, unless said otherwise. */
export function importFile(
  client: Client,
  datasetId: string,
  file: string | Buffer,
  header: Partial<ImportHeader> = {},
  chunkBytes = 1024 * 1024,
): Promise<ImportRowsResponse> {
  async function* requests(): AsyncGenerator<ImportRowsRequest> {
    const value = ImportHeader.fromPartial({
      projectId: project,
      datasetId,
      format: header.layout === undefined ? FileFormat.JSONL : FileFormat.UNSPECIFIED,
      defaultSplit: Split.TRAIN,
      ...header,
    });
    yield { part: { $case: "header", value } };
    const bytes = Buffer.from(file);
    for (let at = 0; at < bytes.byteLength; at += chunkBytes) {
      yield { part: { $case: "chunk", value: bytes.subarray(at, at + chunkBytes) } };
    }
    yield { part: { $case: "end", value: { sizeBytes: bytes.byteLength } } };
  }
  return client.importRows(requests());
}

export function appendRows(
  client: Client,
  parentVersionId: string,
  rows: Row[],
  options: { key?: string; projectId?: string; datasetId?: string; batchRows?: number; aside?: boolean } = {},
): Promise<Version> {
  async function* requests(): AsyncGenerator<AppendRowsRequest> {
    const value = {
      projectId: options.projectId ?? project,
      datasetId: options.datasetId ?? "",
      parentVersionId,
      idempotencyKey: options.key ?? "",
      aside: options.aside ?? false,
    };
    yield { part: { $case: "header", value } };
    const size = options.batchRows ?? 1_000;
    for (let at = 0; at < rows.length; at += size) {
      yield { part: { $case: "batch", value: { rows: rows.slice(at, at + size) } } };
    }
    yield { part: { $case: "end", value: { rowCount: rows.length } } };
  }
  return client.appendRows(requests());
}

export function jsonl(rows: readonly object[]): string {
  return rows.map((row) => `${JSON.stringify(row)}\n`).join("");
}

export function syntheticRow(input: string, root: string, more: Partial<Row> = {}): Row {
  return Row.fromPartial({
    input,
    output: "a",
    split: Split.TRAIN,
    origin: RowOrigin.SYNTHETIC,
    rootRowId: root,
    parentRowId: root,
    iteration: 1,
    ...more,
  });
}

let made = 0;

export async function newDataset(client: Client, projectId = project): Promise<string> {
  const { id } = await client.createDataset({ projectId, name: `dataset-${++made}` });
  return id;
}

export async function allRows(client: Client, version: Version | undefined, pageSize = 1_000): Promise<Row[]> {
  const rows: Row[] = [];
  let cursor = "";
  do {
    const page = await client.listRows({ projectId: project, versionId: version?.id ?? "", pageSize, cursor });
    rows.push(...page.rows);
    cursor = page.nextCursor;
  } while (cursor !== "");
  return rows;
}

export async function exported(client: Client, versionId: string, split = Split.UNSPECIFIED): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const { chunk } of client.exportRows({ projectId: project, versionId, split })) {
    if (chunk.byteLength > 65_536) throw new Error(`a chunk of ${chunk.byteLength} bytes`);
    chunks.push(Buffer.from(chunk));
  }
  return Buffer.concat(chunks).toString("utf8");
}
