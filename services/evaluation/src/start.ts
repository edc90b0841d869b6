/** Wires the evaluation service. */
import { join } from "node:path";
import { FileArtifactStore } from "@tutelage/platform/artifacts";
import { hostPort, serviceSettings } from "@tutelage/platform/config";
import { openDatabase } from "@tutelage/platform/database";
import { served } from "@tutelage/platform/grpc";
import { createLog } from "@tutelage/platform/log";
import type { RunningService } from "@tutelage/platform/process";
import { Runs } from "@tutelage/platform/runs";
import { startRunService } from "@tutelage/platform/runservice";
import { connectStudents, studentSettings } from "@tutelage/platform/students";
import { EvaluationServiceDefinition } from "@tutelage/proto/evaluation/v1/evaluation";
import { z } from "zod";
import type { CheckedRequest, EvaluationState } from "./evaluationrun.js";
import { evaluate } from "./runs.js";
import { evaluationService } from "./service.js";

export const settings = {
  ...serviceSettings,
  EVALUATION_LISTEN: hostPort.default("127.0.0.1:50053"),
  ...studentSettings,
  ARTIFACT_ROOT: z.string().optional(),
};

type Config = z.output<z.ZodObject<typeof settings>>;

export async function start(config: Readonly<Config>): Promise<RunningService> {
  const log = createLog("evaluation", config.LOG_LEVEL);
  const database = await openDatabase({ url: config.DATABASE_URL, schema: "evaluation", log, hasRuns: true });
  const runs = new Runs<CheckedRequest, EvaluationState>(database, log);
  const artifacts = new FileArtifactStore(config.ARTIFACT_ROOT ?? join(config.TUTELAGE_HOME, "artifacts"));
  const students = connectStudents(config);
  const service = evaluationService({ database, runs, student: students.client });
  return await startRunService({
    name: "evaluation",
    listen: config.EVALUATION_LISTEN,
    served: served(EvaluationServiceDefinition, service),
    runs,
    handler: (lease) => evaluate(lease, { database, students, artifacts }),
    // Each student has one slot: another claim would only be refused.
    worker: { concurrency: students.count },
    close: () => students.client.close(),
  });
}
