/** A service that asks a student, on a free port, and a real client. */
import type { parseConfig } from "@tutelage/platform/config";
import { connect } from "@tutelage/platform/grpc";
import type { RunningService } from "@tutelage/platform/process";
import type { CompatServiceDefinition } from "nice-grpc";
import { config } from "./config.js";

type Shape = Parameters<typeof parseConfig>[0];

/** What differs from one such service to another. */
export interface StudentService<Settings extends Shape, Definition extends CompatServiceDefinition> {
  settings: Settings;
  start(settings: ReturnType<typeof config<Settings>>): Promise<RunningService>;
  definition: Definition;
  /** The variable that says where it listens. */
  listen: string;
}

/** Starts the service on a database, a data directory and a student, which may have served another before. */
export async function startOnStudent<Settings extends Shape, Definition extends CompatServiceDefinition>(
  { settings, start, definition, listen }: StudentService<Settings, Definition>,
  url: string,
  home: string,
  student: { address: string },
  more: NodeJS.ProcessEnv = {},
): Promise<{ service: RunningService; client: ReturnType<typeof connect<Definition>> }> {
  const environment = {
    DATABASE_URL: url,
    TUTELAGE_HOME: home,
    LOG_LEVEL: "fatal",
    STUDENT_ADDRESS: student.address,
    [listen]: "127.0.0.1:0",
    ...more,
  };
  const service = await start(config(settings, environment));
  return { service, client: connect(definition, service.address) };
}
