import type { Outcome } from "@tutelage/platform/teacheroutcome";
import { bigint, boolean, integer, jsonb, pgSchema, primaryKey, text, timestamp, uuid } from "drizzle-orm/pg-core";
import type { Reply } from "./teacher.js";

const schema = pgSchema("teacher");

export const calls = schema.table("calls", {
  id: uuid("id").primaryKey(),
  sequence: bigint("sequence", { mode: "number" }).generatedAlwaysAsIdentity(),
  projectId: text("project_id").notNull(),
  runId: uuid("run_id").notNull(),
  requestDigest: text("request_digest").notNull(),
  teacherProfile: text("teacher_profile").notNull(),
  model: text("model").notNull(),
  status: text("status", { enum: ["answered", "failed"] }).notNull(),
  errorCode: text("error_code").notNull().default(""),
  prompt: text("prompt").notNull(),
  rawReply: text("raw_reply").notNull(),
  reply: jsonb("reply").$type<Reply>(),
  promptTokens: bigint("prompt_tokens", { mode: "number" }).notNull(),
  completionTokens: bigint("completion_tokens", { mode: "number" }).notNull(),
  costMicroUsd: bigint("cost_micro_usd", { mode: "number" }).notNull(),
  durationMs: bigint("duration_ms", { mode: "number" }).notNull(),
  finishedAt: timestamp("finished_at", { withTimezone: true }).notNull(),
  /** The project's month that it counts for. */
  month: text("month"),
});

/** What tries under way may cost. */
export const reservations = schema.table("reservations", {
  callId: uuid("call_id").primaryKey(),
  projectId: text("project_id").notNull(),
  runId: uuid("run_id").notNull(),
  fence: bigint("fence", { mode: "number" }).notNull(),
  requestDigest: text("request_digest").notNull(),
  teacherProfile: text("teacher_profile").notNull(),
  model: text("model").notNull(),
  prompt: text("prompt").notNull(),
  promptTokens: bigint("prompt_tokens", { mode: "number" }).notNull(),
  completionTokens: bigint("completion_tokens", { mode: "number" }).notNull(),
  costMicroUsd: bigint("cost_micro_usd", { mode: "number" }).notNull(),
  reservedAt: timestamp("reserved_at", { withTimezone: true }).notNull().defaultNow(),
  month: text("month"),
});

/** What calls of deleted runs cost. */
export const ledger = schema.table("ledger", {
  callId: uuid("call_id").primaryKey(),
  projectId: text("project_id").notNull(),
  runId: uuid("run_id").notNull(),
  teacherProfile: text("teacher_profile").notNull(),
  model: text("model").notNull(),
  status: text("status", { enum: ["answered", "failed"] }).notNull(),
  promptTokens: bigint("prompt_tokens", { mode: "number" }).notNull(),
  completionTokens: bigint("completion_tokens", { mode: "number" }).notNull(),
  costMicroUsd: bigint("cost_micro_usd", { mode: "number" }).notNull(),
  durationMs: bigint("duration_ms", { mode: "number" }).notNull(),
  finishedAt: timestamp("finished_at", { withTimezone: true }).notNull(),
});

export const results = schema.table(
  "results",
  {
    projectId: text("project_id").notNull(),
    runId: uuid("run_id").notNull(),
    position: integer("position").notNull(),
    attempt: integer("attempt").notNull(),
    rowId: text("row_id").notNull(),
    callId: uuid("call_id").notNull(),
    reused: boolean("reused").notNull(),
    outcome: jsonb("outcome").$type<Outcome>().notNull(),
  },
  (table) => [primaryKey({ columns: [table.projectId, table.runId, table.position, table.attempt] })],
);
