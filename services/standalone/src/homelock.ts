/**
 * One stack a home: a lock file with the holder's process id and start time
 * (ids are used again after a reboot, start times are not), and with the
 * children it has, so that the next start can end what a killed holder left.
 */
import { execFile } from "node:child_process";
import { randomUUID } from "node:crypto";
import { link, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";

export interface Holder {
  pid: number;
  /** When the process started, in whatever form the system gives; only compared. */
  started: string;
  url?: string;
  children?: { name: string; pid: number; started: string }[];
}

export interface HomeLock {
  /** Adds to what the lock says about its holder. */
  note(more: Pick<Holder, "url" | "children">): Promise<void>;
  release(): Promise<void>;
}

/** Thrown when a living process holds the home. */
export class HomeInUse extends Error {
  constructor(
    home: string,
    readonly holder: Holder,
  ) {
    const where = holder.url === undefined ? "" : `, ${holder.url}`;
    super(
      `Tutelage already runs on ${home} (process ${holder.pid}${where}). ` +
        `Use that one, stop it with "kill ${holder.pid}", or set TUTELAGE_HOME to another directory.`,
    );
  }
}

/** Takes the lock. Throws HomeInUse; takes over from a holder that is gone and ends its leftover children. */
export async function lockHome(home: string): Promise<HomeLock> {
  const path = join(home, "stack.lock");
  let mine: Holder = { pid: process.pid, started: (await startOf(process.pid)) ?? "" };
  while (!(await create(path, mine))) {
    const holder = await read(path);
    if (holder === undefined) continue;
    if (await lives(holder)) throw new HomeInUse(home, holder);
    // Moved away first: of two starts that find the same stale lock one moves it, and the other looks again.
    const aside = `${path}.${randomUUID()}`;
    if (!(await moved(path, aside))) continue;
    const taken = await read(aside);
    if (taken !== undefined && (await lives(taken))) {
      await link(aside, path).catch(() => {});
      await rm(aside, { force: true });
      throw new HomeInUse(home, taken);
    }
    await rm(aside, { force: true });
    await endAll(holder.children ?? []);
  }
  return {
    note: async (more) => {
      mine = { ...mine, ...more };
      const fresh = `${path}.${randomUUID()}`;
      await writeFile(fresh, JSON.stringify(mine), { mode: 0o600 });
      await rename(fresh, path);
    },
    release: () => rm(path, { force: true }),
  };
}

/** When a process started; undefined when there is none. */
export async function startOf(pid: number): Promise<string | undefined> {
  try {
    if (process.platform === "linux") {
      // After the parenthesised name: state is field 3, start time in clock ticks field 22.
      const text = await readFile(`/proc/${pid}/stat`, "utf8");
      const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
      return fields[0] === "Z" ? undefined : fields[19];
    }
    const { stdout } = await promisify(execFile)("ps", ["-o", "lstart=", "-p", String(pid)]);
    return stdout.trim() || undefined;
  } catch {
    return undefined;
  }
}

async function lives({ pid, started }: { pid: number; started: string }): Promise<boolean> {
  return (await startOf(pid)) === started;
}

/** Creates the file with its content at once, or says that it is there already. */
async function create(path: string, holder: Holder): Promise<boolean> {
  const fresh = `${path}.${randomUUID()}`;
  await writeFile(fresh, JSON.stringify(holder), { mode: 0o600 });
  try {
    await link(fresh, path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  } finally {
    await rm(fresh, { force: true });
  }
}

/** The holder that a lock names; undefined when the lock has gone meanwhile. */
async function read(path: string): Promise<Holder | undefined> {
  try {
    return JSON.parse(await readFile(path, "utf8")) as Holder;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    // Never written by us: damaged. Nobody can hold it.
    if (error instanceof SyntaxError) return { pid: 0, started: "" };
    throw error;
  }
}

async function moved(from: string, to: string): Promise<boolean> {
  return await rename(from, to).then(
    () => true,
    () => false,
  );
}

/** Ends processes that a killed holder left: asks, then insists after three seconds. */
async function endAll(children: { pid: number; started: string }[]): Promise<void> {
  await Promise.all(
    children.map(async (child) => {
      for (const [signal, waits] of [
        ["SIGTERM", 30],
        ["SIGKILL", 10],
      ] as const) {
        if (!(await lives(child))) return;
        try {
          process.kill(child.pid, signal);
        } catch {
          return;
        }
        for (let wait = 0; wait < waits && (await lives(child)); wait++) await sleep(100);
      }
    }),
  );
}
