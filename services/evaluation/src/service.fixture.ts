/** The service on a free port, and a real client. */
import { parseConfig } from "@tutelage/platform/config";
import { connect } from "@tutelage/platform/grpc";
import type { RunningService } from "@tutelage/platform/process";
import { EvaluationServiceDefinition } from "@tutelage/proto/evaluation/v1/evaluation";
import type { TestStudent } from "../../../tests/support/teststudent.js";
import { settings, start } from "./start.js";

export type Client = ReturnType<typeof connect<EvaluationServiceDefinition>>;

/** Starts the service on a database, a data directory and a student, which may have served another before. */
export async function startService(
  url: string,
  home: string,
  student: TestStudent,
): Promise<{ service: RunningService; client: Client }> {
  const parsed = parseConfig(settings, {
    DATABASE_URL: url,
    TUTELAGE_HOME: home,
    LOG_LEVEL: "fatal",
    EVALUATION_LISTEN: "127.0.0.1:0",
    STUDENT_ADDRESS: student.address,
  });
  if ("problems" in parsed) throw new Error(parsed.problems.join());
  const service = await start(parsed.config);
  return { service, client: connect(EvaluationServiceDefinition, service.address) };
}
