/** A small disk that is full: what was to be written fails with that name, and nothing of it stays. Needs root. */
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { settings as datasetsSettings, start as startDatasets } from "@tutelage/datasets/start";
import { FileArtifactStore } from "@tutelage/platform/artifacts";
import { connect } from "@tutelage/platform/grpc";
import { DatasetsServiceDefinition, FileFormat, ImportRowsRequest } from "@tutelage/proto/datasets/v1/datasets";
import { RunStatus } from "@tutelage/proto/run/v1/run";
import { Split, Task, TaskKind } from "@tutelage/proto/task/v1/task";
import { StartTrainingRunRequest, TrainingServiceDefinition } from "@tutelage/proto/training/v1/training";
import { start as startTraining, settings as trainingSettings } from "@tutelage/training/start";
import { afterAll, beforeAll, expect, test } from "vitest";
import { config } from "../support/config.js";
import { testDatabaseUrl } from "../support/database.js";
import { startRealStudent, writeTinyModel } from "../support/realstudent.js";
import { until } from "../support/waiting.js";

const run = promisify(execFile);
const projectId = "default";
const diskBytes = 1024 * 1024;

let home: string;
let disk: string;

/** Where nobody may mount, platform/artifacts.test.ts and the student's tests refuse the write themselves. */
const mayMount = process.platform === "linux" && process.getuid?.() === 0 && (await canMount());

async function canMount(): Promise<boolean> {
  const folder = await mkdtemp(join(tmpdir(), "tutelage-mount-"));
  try {
    await run("mount", ["-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]);
    await run("umount", [folder]);
    return true;
  } catch {
    return false;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), "tutelage-disk-"));
  disk = join(home, "artifacts");
  await mkdir(disk);
  if (mayMount) await run("mount", ["-t", "tmpfs", "-o", `size=${diskBytes}`, "tmpfs", disk]);
});
afterAll(async () => {
  if (mayMount) await run("umount", ["--lazy", disk]);
  await rm(home, { recursive: true, force: true });
});

/** Leaves so much room, of what is free now. */
async function fill(bytesLeft: number): Promise<void> {
  const { stdout } = await run("df", ["--output=avail", "-B1", disk]);
  await writeFile(join(disk, "ballast"), Buffer.alloc(Math.max(0, Number(stdout.split("\n")[1]) - bytesLeft)));
}

const files = async () =>
  (await readdir(disk, { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile() && entry.name !== "ballast")
    .map(({ name }) => name);

test.runIf(mayMount)(
  "an import that does not fit is refused by name; with room, the same import succeeds",
  async () => {
    const environment = {
      DATABASE_URL: await testDatabaseUrl(),
      TUTELAGE_HOME: home,
      LOG_LEVEL: "fatal",
      DATASETS_LISTEN: "127.0.0.1:0",
    };
    const service = await startDatasets(config(datasetsSettings, environment));
    const client = connect(DatasetsServiceDefinition, service.address);
    const { id: datasetId } = await client.createDataset({ projectId, name: "large" });
    const rows = Array.from({ length: 500 }, (_, index) =>
      JSON.stringify({ input: `row ${index} ${"x".repeat(500)}`, output: "a" }),
    );
    const importing = () =>
      client.importRows(
        (async function* () {
          const header = { projectId, datasetId, format: FileFormat.JSONL, defaultSplit: Split.TRAIN };
          yield ImportRowsRequest.fromPartial({
            part: { $case: "header", value: { ...header, idempotencyKey: "once" } },
          });
          const chunk = Buffer.from(rows.join("\n"));
          yield ImportRowsRequest.fromPartial({ part: { $case: "chunk", value: chunk } });
          yield ImportRowsRequest.fromPartial({ part: { $case: "end", value: { sizeBytes: chunk.byteLength } } });
        })(),
      );
    await fill(100_000);
    await expect(importing()).rejects.toMatchObject({ code: "failed_precondition", reason: "disk_full" });
    expect(await files()).toEqual([]);
    await rm(join(disk, "ballast"));
    const { version } = await importing();
    expect(version?.rowCount).toBe(500);
    client.close();
    await service.stop();
  },
);

test.runIf(mayMount)(
  "a training whose checkpoint does not fit fails with the disk's name and leaves no file of it",
  { timeout: 120_000 },
  async () => {
    const student = await startRealStudent(home);
    const model = await writeTinyModel(join(home, "tiny"));
    const profiles = join(home, "students.yaml");
    const recipe =
      "{ method: lora, lora_rank: 8, lora_alpha: 16, lora_dropout: 0, trained_layers: 1, epochs: 1, min_steps: 1, " +
      "exact_steps: 2, batch_rows: 8, micro_batch_tokens: 2048, learning_rate: 0.01, warmup_share: 0.1, " +
      "weight_decay: 0, max_grad_norm: 1, average_share: 0 }";
    await writeFile(
      profiles,
      `profiles:\n  tiny:\n    description: Two layers.\n    model: ${model}\n    recipe: ${recipe}\n`,
    );
    const service = await startTraining(
      config(trainingSettings, {
        DATABASE_URL: await testDatabaseUrl(),
        TUTELAGE_HOME: home,
        LOG_LEVEL: "fatal",
        TRAINING_LISTEN: "127.0.0.1:0",
        STUDENT_ADDRESS: student.address,
        STUDENT_PROFILES: profiles,
      }),
    );
    const client = connect(TrainingServiceDefinition, service.address);
    const lines = ["good", "bad"].map(
      (word, index) => `${JSON.stringify({ id: `r${index}`, input: word, output: word })}\n`,
    );
    const { uri, sha256 } = await new FileArtifactStore(disk).put(`${projectId}/few.jsonl`, lines);
    const request = StartTrainingRunRequest.fromPartial({
      projectId,
      studentProfile: "tiny",
      rows: { uri, sha256 },
      task: Task.fromPartial({ name: "t", kind: TaskKind.TEXT, promptTemplate: "Q: {input}\nA:" }),
    });
    const ended = async () => {
      const id = (await client.startTrainingRun(request)).run?.id ?? "";
      let found = await client.getTrainingRun({ projectId, id });
      await until(async () => {
        found = await client.getTrainingRun({ projectId, id });
        return [RunStatus.SUCCEEDED, RunStatus.FAILED].includes(found.run?.status ?? RunStatus.UNSPECIFIED);
      }, 60_000);
      return found;
    };
    const before = await files();
    await fill(2_000);
    const failed = await ended();
    expect(failed.run?.failure).toMatchObject({ code: "disk_full", message: expect.stringContaining("free some") });
    expect(await files()).toEqual(before);

    await rm(join(disk, "ballast"));
    expect((await ended()).run?.status).toBe(RunStatus.SUCCEEDED);
    client.close();
    await service.stop();
    await student.stop();
  },
);
