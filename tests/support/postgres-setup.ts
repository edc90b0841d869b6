/** Vitest's global set-up: one embedded Postgres for all test files, ended with them. */
import { rmSync } from "node:fs";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startPostgres } from "@tutelage/standalone/postgres";
import type { TestProject } from "vitest/node";
import { postmasterOf } from "./postmaster.js";

declare module "vitest" {
  export interface ProvidedContext {
    postgresAdminUrl: string;
  }
}

export default async function setup(project: TestProject) {
  const home = await mkdtemp(join(tmpdir(), "tutelage-test-"));
  await chmod(home, 0o755);
  // Nothing in a test outlives a power cut, so nothing waits for the disk.
  const postgres = await startPostgres(home, { fsync: "off", synchronous_commit: "off", full_page_writes: "off" });
  project.provide("postgresAdminUrl", postgres.urlOf("postgres"));
  const postmaster = await postmasterOf(postgres);
  // Interrupted, vitest ends without the teardown below; Postgres would live on.
  const cutShort = () => {
    process.kill(postmaster, "SIGQUIT");
    for (const path of [home, postgres.dataDirectory]) rmSync(path, { recursive: true, force: true, maxRetries: 5 });
  };
  process.once("exit", cutShort);
  for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(130));
  return async () => {
    process.off("exit", cutShort);
    await postgres.stop();
    await rm(home, { recursive: true, force: true });
    await rm(postgres.dataDirectory, { recursive: true, force: true });
  };
}
