import { doublePrecision, integer, pgSchema, primaryKey, text, uuid } from "drizzle-orm/pg-core";

/** Metrics of a training run, one row an optimizer step; migrations/training explains it. */
export const trainingSteps = pgSchema("training").table(
  "training_steps",
  {
    projectId: text("project_id").notNull(),
    runId: uuid("run_id").notNull(),
    step: integer("step").notNull(),
    totalSteps: integer("total_steps").notNull(),
    loss: doublePrecision("loss").notNull(),
    learningRate: doublePrecision("learning_rate").notNull(),
    tokensPerSecond: doublePrecision("tokens_per_second").notNull(),
    etaSeconds: doublePrecision("eta_seconds").notNull(),
    gradNorm: doublePrecision("grad_norm").notNull(),
  },
  (table) => [primaryKey({ columns: [table.runId, table.step] })],
);
