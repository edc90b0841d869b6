/** The drizzle view of migrations/datasets. */
import type { Message } from "@tutelage/proto/task/v1/task";
import { bigint, integer, jsonb, pgSchema, primaryKey, text, timestamp, uuid } from "drizzle-orm/pg-core";

const schema = pgSchema("datasets");
const count = (name: string) => bigint(name, { mode: "number" }).notNull();

export const datasets = schema.table("datasets", {
  id: uuid("id").primaryKey().defaultRandom(),
  ordinal: bigint("ordinal", { mode: "number" }).notNull().generatedAlwaysAsIdentity(),
  projectId: text("project_id").notNull(),
  name: text("name").notNull(),
  latestVersionId: uuid("latest_version_id"),
  createdAt: timestamp("created_at", { withTimezone: true }).notNull().defaultNow(),
  deletingAt: timestamp("deleting_at", { withTimezone: true }),
  owner: text("owner").notNull().default(""),
});

export const versions = schema.table("versions", {
  id: uuid("id").primaryKey(),
  ordinal: bigint("ordinal", { mode: "number" }).notNull().generatedAlwaysAsIdentity(),
  projectId: text("project_id").notNull(),
  datasetId: uuid("dataset_id").notNull(),
  parentVersionId: uuid("parent_version_id"),
  lineage: uuid("lineage").array().notNull(),
  digest: text("digest").notNull(),
  rowCount: count("row_count"),
  addedRowCount: count("added_row_count"),
  trainCount: count("train_count"),
  devCount: count("dev_count"),
  testCount: count("test_count"),
  artifactUri: text("artifact_uri").notNull(),
  artifactSha256: text("artifact_sha256").notNull(),
  createdAt: timestamp("created_at", { withTimezone: true }).notNull().defaultNow(),
});

export const rows = schema.table(
  "rows",
  {
    projectId: text("project_id").notNull(),
    versionId: uuid("version_id").notNull(),
    position: count("position"),
    id: text("id").notNull(),
    input: text("input"),
    messages: jsonb("messages").$type<Message[]>(),
    output: text("output").notNull(),
    split: text("split").notNull(),
    origin: text("origin").notNull(),
    rootRowId: text("root_row_id"),
    parentRowId: text("parent_row_id"),
    iteration: integer("iteration").notNull(),
    metadata: jsonb("metadata").$type<Record<string, string>>().notNull(),
  },
  (table) => [primaryKey({ columns: [table.versionId, table.position] })],
);

/** What an import told its caller, besides the version. */
export interface ImportResult {
  importedRows: number;
  rejectedRows: number;
  rejects: { line: number; code: string; field: string; message: string }[];
}

export const commits = schema.table(
  "commits",
  {
    projectId: text("project_id").notNull(),
    datasetId: uuid("dataset_id").notNull(),
    idempotencyKey: text("idempotency_key").notNull(),
    requestSha256: text("request_sha256").notNull(),
    versionId: uuid("version_id").notNull(),
    result: jsonb("result").$type<ImportResult>().notNull(),
    createdAt: timestamp("created_at", { withTimezone: true }).notNull().defaultNow(),
  },
  (table) => [primaryKey({ columns: [table.projectId, table.datasetId, table.idempotencyKey] })],
);

export const holds = schema.table(
  "holds",
  {
    projectId: text("project_id").notNull(),
    versionId: uuid("version_id").notNull(),
    holder: text("holder").notNull(),
    expiresAt: timestamp("expires_at", { withTimezone: true }),
    createdAt: timestamp("created_at", { withTimezone: true }).notNull().defaultNow(),
  },
  (table) => [primaryKey({ columns: [table.projectId, table.versionId, table.holder] })],
);
