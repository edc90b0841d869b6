/** The service on a free port, and a real client. */
import type { connect } from "@tutelage/platform/grpc";
import { TrainingServiceDefinition as definition } from "@tutelage/proto/training/v1/training";
import { startOnStudent } from "../../../tests/support/studentservice.js";
import { settings, start } from "./start.js";

export type Client = ReturnType<typeof connect<typeof definition>>;

const it = { settings, start, definition, listen: "TRAINING_LISTEN" };

export const startService = (url: string, home: string, student: { address: string }, more: NodeJS.ProcessEnv = {}) =>
  startOnStudent(it, url, home, student, more);
