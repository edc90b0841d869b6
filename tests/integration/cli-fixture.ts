/**
 * The command line before a real gateway, the real datasets service and the real campaigns service with its worker;
 * student and teacher are stand-ins that offer their profiles, and a training that fails or never ends.
 */
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { settings as datasetsSettings, start as startDatasets } from "@tutelage/datasets/start";
import { TutelageError } from "@tutelage/platform/errors";
import { serve } from "@tutelage/platform/grpc";
import { EvaluationServiceDefinition } from "@tutelage/proto/evaluation/v1/evaluation";
import { TeacherServiceDefinition } from "@tutelage/proto/teacher/v1/teacher";
import { TrainingServiceDefinition } from "@tutelage/proto/training/v1/training";
import type { CallContext } from "nice-grpc";
import pg from "pg";
import { startCampaignsAndGateway } from "../support/campaignsgateway.js";
import { config } from "../support/config.js";
import { testDatabaseUrl } from "../support/database.js";
import { log, standIn, studentProfile, teacherProfile } from "./gateway-fixture.js";

const command = fileURLToPath(new URL("../../cli/bin/tutelage.mjs", import.meta.url));

export interface Told {
  code: number;
  out: string;
  told: string;
}

export async function startCliFixture() {
  const home = await mkdtemp(join(tmpdir(), "tutelage-cli-"));
  const desk = join(home, "desk");
  await mkdir(desk);
  const databaseUrl = await testDatabaseUrl();
  const shared = { TUTELAGE_HOME: home, LOG_LEVEL: "fatal" };
  const student = { fails: true };
  const stopping = new AbortController();
  const training = standIn(TrainingServiceDefinition, {
    listStudentProfiles: async () => ({ profiles: [studentProfile] }),
    startTrainingRun: async (_: unknown, { signal }: CallContext) => {
      if (!student.fails) {
        const ended = AbortSignal.any([signal, stopping.signal]);
        await new Promise((_done, stop) => ended.addEventListener("abort", () => stop(ended.reason)));
      }
      throw new TutelageError("failed_precondition", "The student's disk is full.", { reason: "disk_full" });
    },
  });
  const teacher = standIn(TeacherServiceDefinition, {
    listTeacherProfiles: async () => ({ profiles: [teacherProfile] }),
  });
  const [trainingServer, teacherServer, evaluationServer] = await Promise.all(
    [training, teacher, standIn(EvaluationServiceDefinition, {})].map((service) =>
      serve({ listen: "127.0.0.1:0", services: [service], log }),
    ),
  );
  const datasets = await startDatasets(
    config(datasetsSettings, { ...shared, DATABASE_URL: databaseUrl, DATASETS_LISTEN: "127.0.0.1:0" }),
  );
  const addresses = {
    DATASETS_ADDRESS: datasets.address,
    TRAINING_ADDRESS: trainingServer?.address,
    TEACHER_ADDRESS: teacherServer?.address,
    EVALUATION_ADDRESS: evaluationServer?.address,
  };
  const { campaigns, gateway } = await startCampaignsAndGateway({
    ...shared,
    ...addresses,
    DATABASE_URL: databaseUrl,
  });
  const url = `http://${gateway.address}`;
  const database = new pg.Pool({ connectionString: databaseUrl, max: 1 });
  return {
    url,
    /** The folder where the user is. */
    desk,
    /** How its trainings end: at once, or never. */
    student,
    /** Puts a file where the user is. */
    put: (name: string, content: string | Buffer) => writeFile(join(desk, name), content),
    /** One command of the CLI, run where the user is. */
    tutelage: (...args: string[]): Promise<Told> =>
      new Promise((done) => {
        const environment = { ...process.env, TUTELAGE_URL: url };
        const child = execFile(
          process.execPath,
          [command, ...args],
          { cwd: desk, env: environment, maxBuffer: 64 * 1024 * 1024 },
          (_error, out, told) => done({ code: child.exitCode ?? -1, out, told }),
        );
      }),
    /** Ends a campaign as its worker would have. */
    end: async (id: string, status: "SUCCEEDED") => {
      await database.query(
        "update campaigns.runs set status = $2, fence = fence + 1, finished_at = now(), revision = revision + 1 where id = $1",
        [id, status],
      );
    },
    stop: async () => {
      stopping.abort();
      await database.end();
      await gateway.stop();
      await campaigns.stop();
      await datasets.stop();
      await Promise.all([trainingServer, teacherServer, evaluationServer].map((server) => server?.stop(100)));
      await rm(home, { recursive: true, force: true });
    },
  };
}

export type CliFixture = Awaited<ReturnType<typeof startCliFixture>>;
