import type { LabelScore } from "@tutelage/proto/student/v1/student";
import { boolean, doublePrecision, integer, jsonb, pgSchema, primaryKey, text, uuid } from "drizzle-orm/pg-core";

/** Graded predictions of evaluation runs; migrations/evaluation explains it. */
export const predictions = pgSchema("evaluation").table(
  "predictions",
  {
    projectId: text("project_id").notNull(),
    runId: uuid("run_id").notNull(),
    position: integer("position").notNull(),
    rowId: text("row_id").notNull(),
    text: text("text").notNull(),
    answer: text("answer").notNull(),
    expected: text("expected").notNull(),
    correct: boolean("correct").notNull(),
    logProbability: doublePrecision("log_probability").notNull(),
    labelScores: jsonb("label_scores").$type<LabelScore[]>().notNull(),
    tooLong: boolean("too_long").notNull(),
    rougeL: doublePrecision("rouge_l"),
    disputed: boolean("disputed").notNull(),
  },
  (table) => [primaryKey({ columns: [table.runId, table.position] })],
);
