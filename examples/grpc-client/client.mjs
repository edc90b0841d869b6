/**
 * A whole campaign over gRPC, as another service would drive it: makes a
 * dataset, imports a file, starts a campaign, watches it to its end, reads its
 * iterations. Made to be copied: it needs this file, the protos and
 * @grpc/grpc-js with @grpc/proto-loader.
 *
 * Everything is done once however often it is run with the same --key: that is
 * what the idempotency keys are for.
 */
import { createReadStream } from "node:fs";
import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const { values: options } = parseArgs({
  options: {
    datasets: { type: "string", default: "127.0.0.1:50051" },
    campaigns: { type: "string", default: "127.0.0.1:50055" },
    protos: { type: "string", default: fileURLToPath(new URL("../../proto", import.meta.url)) },
    project: { type: "string", default: "default" },
    /** Rows as JSON Lines; a key "split" says train, dev or test. */
    rows: { type: "string" },
    /** A task as JSON, or the name of one that the service knows. */
    task: { type: "string" },
    student: { type: "string", default: "smollm2-135m" },
    teacher: { type: "string", default: "gemma3-270m" },
    /** Settings as JSON, with the names of the proto: {"iterations": 2}. */
    settings: { type: "string", default: "{}" },
    /** Names the dataset, and makes a repeated run find what the first one made. */
    key: { type: "string" },
  },
});
if (options.rows === undefined || options.task === undefined || options.key === undefined) {
  console.error("Usage: node client.mjs --rows rows.jsonl --task task.json --key my-first [--datasets host:port …]");
  process.exit(64);
}

// The same names as in the protos' JSON form: camelCase, enums as text, 64-bit numbers as numbers.
const loaded = loadSync(["tutelage/datasets/v1/datasets.proto", "tutelage/campaigns/v1/campaigns.proto"], {
  includeDirs: [options.protos],
  longs: Number,
  enums: String,
  defaults: true,
  oneofs: true,
});
const { datasets, campaigns } = grpc.loadPackageDefinition(loaded).tutelage;
const insecure = grpc.credentials.createInsecure();
const datasetsClient = new datasets.v1.DatasetsService(options.datasets, insecure);
const campaignsClient = new campaigns.v1.CampaignsService(options.campaigns, insecure);
const projectId = options.project;

/** A unary call with a deadline. While the service is away it is made again: every call here may be. */
async function call(client, method, request, deadlineMs = 30_000) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await new Promise((resolve, reject) => {
        const deadline = Date.now() + deadlineMs;
        client[method](request, { deadline }, (error, reply) => (error ? reject(error) : resolve(reply)));
      });
    } catch (error) {
      if (error.code !== grpc.status.UNAVAILABLE || attempt === 20) throw error;
      await sleep(500);
    }
  }
}

async function makeDataset(name) {
  try {
    return await call(datasetsClient, "createDataset", { projectId, name });
  } catch (error) {
    if (error.code !== grpc.status.ALREADY_EXISTS) throw error;
    return await call(datasetsClient, "getDataset", { projectId, name });
  }
}

/** A client stream: the header, the file in chunks as fast as the service takes them, and its size: all came. */
async function importFile(datasetId, path, idempotencyKey) {
  let stream;
  const reply = new Promise((resolve, reject) => {
    const deadline = Date.now() + 600_000;
    stream = datasetsClient.importRows({ deadline }, (error, answer) => (error ? reject(error) : resolve(answer)));
  });
  const send = async (message) => {
    if (!stream.write(message)) await Promise.race([new Promise((drained) => stream.once("drain", drained)), reply]);
  };
  const header = { projectId, datasetId, idempotencyKey, format: "FILE_FORMAT_JSONL" };
  await send({ header: { ...header, splitColumn: "split", defaultSplit: "SPLIT_TRAIN" } });
  let sizeBytes = 0;
  for await (const chunk of createReadStream(path, { highWaterMark: 256 * 1024 })) {
    await send({ chunk });
    sizeBytes += chunk.byteLength;
  }
  await send({ end: { sizeBytes } });
  stream.end();
  return await reply;
}

/** Follows a campaign to its end. A stream that breaks is opened again after the last event that was seen. */
async function watch(id) {
  let afterSequence = 0;
  let campaign;
  for (;;) {
    try {
      for await (const { event, campaign: now } of campaignsClient.watchCampaign({ projectId, id, afterSequence })) {
        campaign = now;
        if (event === null) continue;
        afterSequence = event.sequence;
        console.error(`${event.sequence} ${event.type} ${event.payloadJson}`);
      }
      if (!["RUN_STATUS_QUEUED", "RUN_STATUS_RUNNING"].includes(campaign?.run.status)) return campaign;
    } catch (error) {
      if (error.code !== grpc.status.UNAVAILABLE) throw error;
    }
    await sleep(500);
  }
}

const dataset = await makeDataset(options.key);
const imported = await importFile(dataset.id, options.rows, options.key);
for (const { line, field, message } of imported.rejects) console.error(`line ${line}: ${field} ${message}`);
if (imported.version === null) throw new Error("No row was imported.");
console.error(`${imported.importedRows} rows are version ${imported.version.id}`);

const task = options.task.endsWith(".json") ? { task: await readTask(options.task) } : { taskName: options.task };
const started = await call(campaignsClient, "startCampaign", {
  projectId,
  idempotencyKey: options.key,
  name: options.key,
  datasetVersionId: imported.version.id,
  studentProfile: options.student,
  teacherProfile: options.teacher,
  settings: JSON.parse(options.settings),
  ...task,
});
console.error(`campaign ${started.run.id}`);

const { run, outcome } = await watch(started.run.id);
const { iterations } = await call(campaignsClient, "listIterations", { projectId, id: run.id });
for (const one of iterations) {
  const accuracy = one.devAccuracy ?? one.crossFitAccuracy;
  const right = accuracy === null ? "–" : `${(100 * accuracy.value).toFixed(1)} %`;
  console.error(`iteration ${one.number}: ${one.trainRows} rows, ${one.accepted} accepted, ${right} right`);
}
// The last line is for programs.
console.log(
  JSON.stringify({
    campaign: run.id,
    status: run.status,
    summary: outcome?.summary ?? run.failure?.message,
    iterations,
  }),
);
datasetsClient.close();
campaignsClient.close();
process.exitCode = run.status === "RUN_STATUS_SUCCEEDED" ? 0 : 1;

/** The task files of the examples are written as REST has them: snake_case, kinds in lower case. */
async function readTask(path) {
  const { kind, grader, ...rest } = JSON.parse(await readFile(path, "utf8"));
  const camel = Object.entries(rest).map(([key, value]) => [key.replace(/_(\w)/g, (_, x) => x.toUpperCase()), value]);
  return {
    ...Object.fromEntries(camel),
    kind: `TASK_KIND_${kind.toUpperCase()}`,
    grader: `GRADER_${(grader ?? "unspecified").toUpperCase()}`,
  };
}
