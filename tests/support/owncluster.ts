/** A Postgres of a test's own, which it may stop, kill and start. */
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startOf } from "@tutelage/standalone/homelock";
import { type EmbeddedPostgres, startPostgres } from "@tutelage/standalone/postgres";
import { postmasterOf } from "./postmaster.js";
import { until } from "./waiting.js";

/** What was committed must outlive its processes, though not the machine. */
const settings = { fsync: "off", full_page_writes: "off" };

export interface OwnCluster {
  url: string;
  home: string;
  postmaster(): Promise<number>;
  /** Sessions are cut, as by an administrator. */
  stop(): Promise<void>;
  /** SIGKILL of the postmaster; its children end when they notice. */
  kill(): Promise<void>;
  /** Starts it again on its port; waits for what is left of a killed one. Gives whether it found a live one. */
  start(): Promise<boolean>;
  remove(): Promise<void>;
}

export async function startOwnCluster(): Promise<OwnCluster> {
  const home = await mkdtemp(join(tmpdir(), "tutelage-cluster-"));
  await chmod(home, 0o755);
  let cluster: EmbeddedPostgres = await startPostgres(home, settings);
  const { url, port } = cluster;
  const postmaster = () => postmasterOf(cluster);
  return {
    url,
    home,
    postmaster,
    stop: () => cluster.stop(),
    kill: async () => {
      const pid = await postmaster();
      process.kill(pid, "SIGKILL");
      await until(async () => (await startOf(pid)) === undefined);
    },
    start: async () => {
      cluster = await startPostgres(home, { ...settings, port: String(port) });
      return cluster.adopted;
    },
    remove: async () => {
      await cluster.stop().catch(() => {});
      await rm(home, { recursive: true, force: true });
      await rm(cluster.dataDirectory, { recursive: true, force: true });
    },
  };
}
