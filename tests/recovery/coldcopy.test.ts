/** A cold copy by the command line: made of a stopped home, checked when it is put back, refused while a server runs. */
import { execFile } from "node:child_process";
import { chmod, mkdir, mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { settings, start } from "@tutelage/datasets/start";
import { connect } from "@tutelage/platform/grpc";
import { DatasetsServiceDefinition, FileFormat, ImportRowsRequest } from "@tutelage/proto/datasets/v1/datasets";
import { Split } from "@tutelage/proto/task/v1/task";
import { lockHome } from "@tutelage/standalone/homelock";
import { clusterPlace, erasePostgres, startPostgres } from "@tutelage/standalone/postgres";
import { afterAll, beforeAll, expect, test } from "vitest";
import { config } from "../support/config.js";

const command = fileURLToPath(new URL("../../cli/bin/tutelage.mjs", import.meta.url));
const slow = 120_000;
const projectId = "default";
let folder: string;
let home: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tutelage-coldcopy-"));
  await chmod(folder, 0o755);
  home = join(folder, "home");
});
afterAll(async () => {
  await erasePostgres(home);
  await rm(folder, { recursive: true, force: true });
}, slow);

const tutelage = (...args: string[]) => tutelageOn(undefined, ...args);

function tutelageOn(
  databaseUrl: string | undefined,
  ...args: string[]
): Promise<{ code: number; out: string; told: string }> {
  const env: NodeJS.ProcessEnv = { ...process.env, TUTELAGE_HOME: home, DATABASE_URL: databaseUrl };
  return new Promise((done) => {
    const child = execFile(process.execPath, [command, ...args], { env, cwd: folder }, (_error, out, told) =>
      done({ code: child.exitCode ?? -1, out, told }),
    );
  });
}

/** The datasets service on the home's own Postgres, as long as the work lasts. */
async function served<Result>(work: (client: ReturnType<typeof connected>) => Promise<Result>): Promise<Result> {
  const postgres = await startPostgres(home);
  const environment = { DATABASE_URL: postgres.url, TUTELAGE_HOME: home, LOG_LEVEL: "fatal" };
  const service = await start(config(settings, { ...environment, DATASETS_LISTEN: "127.0.0.1:0" }));
  const client = connected(service.address);
  try {
    return await work(client);
  } finally {
    client.close();
    await service.stop();
    // Left running, as by a server that was killed.
  }
}
const connected = (address: string) => connect(DatasetsServiceDefinition, address);

test("what was backed up is there again after a restore, checked by digest; a running server is refused", {
  timeout: slow,
}, async () => {
  const none = await tutelage("backup", "early");
  expect(none.code).toBe(65);
  expect(none.told).toContain("There is no embedded Postgres of");

  const versionId = await served(async (client) => {
    const { id: datasetId } = await client.createDataset({ projectId, name: "precious" });
    const header = { projectId, datasetId, format: FileFormat.JSONL, defaultSplit: Split.TRAIN };
    const { version } = await client.importRows(
      (async function* () {
        yield ImportRowsRequest.fromPartial({ part: { $case: "header", value: header } });
        const lines = '{"input":"a","output":"1"}\n{"input":"b","output":"2"}\n';
        yield ImportRowsRequest.fromPartial({ part: { $case: "chunk", value: Buffer.from(lines) } });
        yield ImportRowsRequest.fromPartial({ part: { $case: "end", value: { sizeBytes: lines.length } } });
      })(),
    );
    return version?.id ?? "";
  });

  const lock = await lockHome(home);
  const refused = await tutelage("backup", "copy");
  expect(refused.code).toBe(65);
  expect(refused.told).toContain(`A server runs on ${home} (process ${process.pid}). Stop it first`);
  await lock.release();

  const made = await tutelage("backup", "copy", "--json");
  expect(made.code, made.told).toBe(0);
  expect(JSON.parse(made.out)).toMatchObject({ folder: join(folder, "copy"), version: "0.1.0" });
  expect((await tutelage("backup", "copy")).told).toContain("is there already");

  // The home is lost, its cluster with it.
  const occupied = await tutelage("restore", "copy");
  expect(occupied.code).toBe(65);
  expect(occupied.told).toContain("has something in it already; move it away");
  await erasePostgres(home);
  await rm(home, { recursive: true, force: true });

  const elsewhere = await tutelage("restore", "copy", "--home", join(folder, "other"));
  expect(elsewhere.code).toBe(65);
  expect(elsewhere.told).toContain(`knows its files by where they lay, ${join(home, "artifacts")}`);

  const restored = await tutelage("restore", "copy");
  expect(restored.code, restored.told).toBe(0);
  expect(restored.out).toMatch(/Restored .*home: \d+ files, .*all checked\./);
  await served(async (client) => {
    const { rows } = await client.listRows({
      projectId,
      versionId,
      split: Split.UNSPECIFIED,
      pageSize: 10,
      cursor: "",
    } as never);
    expect(rows.map(({ input }) => input)).toEqual(["a", "b"]);
    expect((await client.getVersion({ projectId, id: versionId })).rowCount).toBe(2);
  });
});

test("a backup with an altered file is refused, and the home stays as empty as it was", { timeout: slow }, async () => {
  const victim = join(folder, "copy", "postgres", "data", "PG_VERSION");
  const content = await readFile(victim);
  await writeFile(victim, "17\n");
  const { directory } = await clusterPlace(home);
  await (await startPostgres(home)).stop();
  const aside = join(folder, "aside");
  await mkdir(aside);
  await rename(join(directory, "data"), join(aside, "data"));
  await rename(join(home, "artifacts"), join(aside, "artifacts"));
  const refused = await tutelage("restore", "copy");
  expect(refused.code).toBe(65);
  expect(refused.told).toMatch(/The backup is damaged: .*PG_VERSION was changed.*Nothing was restored\./);
  await writeFile(victim, content);
  expect((await tutelage("restore", "copy")).code).toBe(0);
});

test("with a Postgres of one's own there is pg_dump, and the command says so", async () => {
  const { told } = await tutelageOn("postgres://me@127.0.0.1/mine", "backup", "copy2");
  expect(told).toContain("copy that with pg_dump");
});
