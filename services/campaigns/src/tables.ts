import type { Candidate, Iteration } from "@tutelage/proto/campaigns/v1/campaigns";
import type { Task } from "@tutelage/proto/task/v1/task";
import {
  bigint,
  boolean,
  doublePrecision,
  integer,
  jsonb,
  pgSchema,
  primaryKey,
  text,
  timestamp,
  uuid,
} from "drizzle-orm/pg-core";

const schema = pgSchema("campaigns");

/** Every table belongs to a project and a campaign. */
const owner = () => ({ projectId: text("project_id").notNull(), campaignId: uuid("campaign_id").notNull() });

export const steps = schema.table(
  "steps",
  {
    ...owner(),
    name: text().notNull(),
    output: jsonb(),
    seconds: doublePrecision().notNull(),
    finishedAt: timestamp("finished_at", { withTimezone: true }).notNull().defaultNow(),
    /** Taken over by a fork from its parent. */
    shared: boolean().notNull().default(false),
  },
  (table) => [primaryKey({ columns: [table.campaignId, table.name] })],
);

export const iterations = schema.table(
  "iterations",
  { ...owner(), number: integer().notNull(), iteration: jsonb().$type<Iteration>().notNull() },
  (table) => [primaryKey({ columns: [table.campaignId, table.number] })],
);

export const candidates = schema.table(
  "candidates",
  {
    ...owner(),
    number: bigint({ mode: "number" }).notNull(),
    iteration: integer().notNull(),
    accepted: boolean().notNull(),
    candidate: jsonb().$type<Candidate>().notNull(),
  },
  (table) => [primaryKey({ columns: [table.campaignId, table.number] })],
);

export const events = schema.table(
  "events",
  {
    ...owner(),
    sequence: bigint({ mode: "number" }).notNull(),
    at: timestamp({ withTimezone: true }).notNull().defaultNow(),
    type: text().notNull(),
    payload: jsonb().notNull(),
  },
  (table) => [primaryKey({ columns: [table.campaignId, table.sequence] })],
);

export const seedGrades = schema.table(
  "seed_grades",
  {
    ...owner(),
    rowId: text("row_id").notNull(),
    iteration: integer().notNull(),
    correct: boolean().notNull(),
    answer: text().notNull(),
    expectedProbability: doublePrecision("expected_probability"),
  },
  (table) => [primaryKey({ columns: [table.campaignId, table.rowId, table.iteration] })],
);

export const tasks = schema.table(
  "tasks",
  {
    projectId: text("project_id").notNull(),
    name: text().notNull(),
    task: jsonb().$type<Task>().notNull(),
    updatedAt: timestamp("updated_at", { withTimezone: true }).notNull(),
  },
  (table) => [primaryKey({ columns: [table.projectId, table.name] })],
);
