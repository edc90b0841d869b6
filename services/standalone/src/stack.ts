/**
 * The whole of Tutelage in one process tree: Postgres, the students and every
 * service, each a child that is started again when it dies.
 */
import { existsSync } from "node:fs";
import { mkdir, rm } from "node:fs/promises";
import { delimiter, join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { type HealthProbe, healthProbe } from "@tutelage/platform/health";
import { Child, type ChildEvent } from "./child.js";
import { type HomeLock, lockHome, startOf } from "./homelock.js";
import { choosePorts, isFree } from "./ports.js";
import { type EmbeddedPostgres, erasePostgres, keepPostgres, startPostgres } from "./postgres.js";
import { studentCount, thisMachine } from "./studentcount.js";

const repository = fileURLToPath(new URL("../../../", import.meta.url));

const domainServices = ["datasets", "training", "evaluation", "teacher", "campaigns"] as const;
type DomainService = (typeof domainServices)[number];
/** One of the students that share the cores. */
type StudentName = "student" | `student-${number}`;
export type ServiceName = DomainService | StudentName | "gateway";

/** Twelve seconds in all at most; the teacher lets calls under way end, as they are paid for. What is killed hands its leases over by their running out, so nothing is lost. */
const stopMs: Record<DomainService | "student" | "gateway", number> = {
  gateway: 2_000,
  campaigns: 3_500,
  datasets: 3_500,
  training: 3_500,
  evaluation: 3_500,
  teacher: 6_000,
  student: 1_500,
};
const postgresStopMs = 2_500;
/** The student imports PyTorch first: 5 to 15 s on two cold cores, more on a busy machine. */
const startTimeoutMs = 180_000;

/** Variables that services and Python may need. */
const ordinary = new RegExp(
  `^(${[
    "PATH|HOME|USER|LANG|LC_.*|TZ|TMPDIR|TMP|TEMP|SYSTEMROOT|LD_LIBRARY_PATH|DYLD_.*|XDG_.*|.*_PROXY|SSL_CERT_.*",
    "NODE_.*|PYTHON.*|VIRTUAL_ENV|OMP_.*|MKL_.*|OPENBLAS_.*|TORCH.*|CUDA_.*|NVIDIA_.*|HF_.*|TRANSFORMERS_.*",
    "LOG_LEVEL|ARTIFACT_ROOT|(TUTELAGE|STUDENT|DATASETS|TRAINING|EVALUATION|TEACHER|CAMPAIGNS|GATEWAY)_.*",
  ].join("|")})$`,
  "i",
);

/** Whether a child that is not the teacher sees a variable: no key of anybody, but a model hub's token for the student, and the one that all share. */
function isFor(name: ServiceName, variable: string): boolean {
  if (variable === "TUTELAGE_TOKEN") return true;
  if (/(KEY|TOKEN|SECRET|PASSWORD)S?$/i.test(variable)) return isStudent(name) && variable === "HF_TOKEN";
  return ordinary.test(variable);
}

export type StackEvent =
  | ChildEvent
  | { type: "postgres"; adopted: boolean; seconds: number }
  | { type: "postgres-restarted" };

export interface StackOptions {
  /** Everything it keeps lies here. */
  home: string;
  /** Laid over this process's environment for every child. */
  environment?: NodeJS.ProcessEnv;
  /** HTTP port; a free one when 0. */
  httpPort?: number;
  /** Address that HTTP is served on; loopback unless TUTELAGE_TOKEN is set. */
  httpHost?: string;
  /** Nothing of it is worth keeping: home and Postgres are removed when it stops. */
  temporary?: boolean;
  /** A Postgres to use instead of the embedded one. */
  databaseUrl?: string;
  /** Settings of the embedded Postgres, e.g. fsync. */
  postgresSettings?: Record<string, string>;
  /** Told what happens: a line for a person, and what it is made of. */
  onEvent?: (line: string, event: StackEvent) => void;
  /** Aborts a start that takes too long for somebody. */
  signal?: AbortSignal;
}

export interface Stack {
  /** http://127.0.0.1:port */
  url: string;
  /** host:port of every gRPC server; of several students all, with commas between. */
  addresses: Record<DomainService | "student", string>;
  databaseUrl: string;
  home: string;
  logDirectory: string;
  /** The process that runs a service now; undefined while it is being started again. */
  pidOf(name: ServiceName): number | undefined;
  /** Starts a service anew. */
  restart(name: ServiceName): Promise<void>;
  /** Ends everything within ten seconds, the gateway first, Postgres last. */
  stop(): Promise<void>;
}

/** Starts everything and waits until it is ready. Throws HomeInUse, or what kept it from starting. */
export async function startStack(options: StackOptions): Promise<Stack> {
  const home = resolve(options.home);
  const logDirectory = join(home, "logs");
  await mkdir(logDirectory, { recursive: true });
  const lock = await lockHome(home);
  const stack = new RunningStack(home, logDirectory, lock, options);
  try {
    await stack.start();
    return stack;
  } catch (error) {
    await stack.stop();
    throw error;
  }
}

class RunningStack implements Stack {
  url = "";
  databaseUrl = "";
  addresses = {} as Stack["addresses"];
  private readonly children = new Map<ServiceName, Child>();
  private readonly probes: HealthProbe[] = [];
  private readonly stopping = new AbortController();
  private readonly watching: Promise<void>[] = [];
  private postgres: EmbeddedPostgres | undefined;
  private stopped: Promise<void> | undefined;

  constructor(
    readonly home: string,
    readonly logDirectory: string,
    private readonly lock: HomeLock,
    private readonly options: StackOptions,
  ) {}

  async start(): Promise<void> {
    const { httpPort = 0, httpHost = "127.0.0.1" } = this.options;
    if (httpPort !== 0 && !(await isFree(httpPort))) {
      throw new Error(
        `Port ${httpPort} is taken. Set TUTELAGE_PORT to another one, e.g. TUTELAGE_PORT=${httpPort + 1}.`,
      );
    }
    const given = { ...process.env, ...this.options.environment };
    const machine = thisMachine();
    const count = studentCount(given.TUTELAGE_STUDENTS ?? "", machine);
    const students = Array.from(
      { length: count },
      (_, index): StudentName => (index === 0 ? "student" : `student-${index + 1}`),
    );
    const names = [...domainServices, ...students];
    const [gatewayPort, ...ports] = await choosePorts(names.length + 1);
    // Where other programs are to speak gRPC to a service, its port is chosen by who starts it: CAMPAIGNS_LISTEN.
    const chosen = names.map((name, index) => given[`${name.toUpperCase()}_LISTEN`] || `127.0.0.1:${ports[index]}`);
    const studentAddresses = chosen.slice(domainServices.length);
    this.addresses = {
      ...(Object.fromEntries(domainServices.map((name, index) => [name, chosen[index]])) as Record<
        DomainService,
        string
      >),
      student: studentAddresses.join(","),
    };
    const gateway = `${httpHost}:${httpPort || gatewayPort}`;
    this.url = `http://127.0.0.1:${httpPort || gatewayPort}`;
    await this.lock.note({ url: this.url });

    // A student needs no database: it imports PyTorch while Postgres starts.
    const signal = AbortSignal.any([this.stopping.signal, this.options.signal ?? this.stopping.signal]);
    const threads = Math.max(1, Math.floor(machine.cores / count));
    const studentsReady = Promise.all(
      students.map((name, index) =>
        this.startStudent(name, studentAddresses[index] as string, threads).healthy(startTimeoutMs, signal),
      ),
    );
    studentsReady.catch(() => {});
    await this.startDatabase();
    signal.throwIfAborted();
    for (const name of domainServices) {
      this.startService(
        name,
        { [`${name.toUpperCase()}_LISTEN`]: this.addresses[name] },
        this.probe(this.addresses[name]),
      );
    }
    this.startService("gateway", { GATEWAY_LISTEN: gateway }, async () => {
      return await fetch(`${this.url}/health`, { signal: AbortSignal.timeout(2_000) }).then(
        (response) => response.ok,
        () => false,
      );
    });
    const others = [...this.children].filter(([name]) => !isStudent(name));
    await Promise.all([studentsReady, ...others.map(([, child]) => child.healthy(startTimeoutMs, signal))]);
    for (const child of this.children.values()) this.watching.push(child.watchHealth(this.stopping.signal));
  }

  pidOf(name: ServiceName): number | undefined {
    return this.children.get(name)?.pid;
  }

  async restart(name: ServiceName): Promise<void> {
    const child = this.children.get(name);
    if (child === undefined || this.stopping.signal.aborted) return;
    await child.restart();
    await child.healthy(startTimeoutMs, this.stopping.signal);
  }

  stop(): Promise<void> {
    this.stopped ??= this.stopInOrder();
    return this.stopped;
  }

  private async stopInOrder(): Promise<void> {
    this.stopping.abort();
    await this.children.get("gateway")?.stop();
    const others = [...this.children].filter(([name]) => name !== "gateway");
    const stopAll = async (which: (name: ServiceName) => boolean) =>
      await Promise.all(others.filter(([name]) => which(name)).map(([, child]) => child.stop()));
    await stopAll((name) => !isStudent(name));
    await stopAll(isStudent);
    for (const probe of this.probes) probe.close();
    await Promise.all(this.watching);
    if (this.postgres !== undefined) {
      // A long last checkpoint goes on without us; the next start finds the cluster either way.
      const stopped = this.postgres.stop().catch(() => {});
      await Promise.race([stopped, sleep(postgresStopMs, undefined, { ref: false })]);
    }
    if (this.options.temporary) {
      if (this.options.databaseUrl === undefined) await erasePostgres(this.home);
      await rm(this.home, { recursive: true, force: true });
    } else await this.lock.release();
  }

  private async startDatabase(): Promise<void> {
    if (this.options.databaseUrl !== undefined) {
      this.databaseUrl = this.options.databaseUrl;
      return;
    }
    const began = Date.now();
    const settings = this.options.postgresSettings ?? {};
    const postgres = await startPostgres(this.home, settings);
    this.postgres = postgres;
    this.databaseUrl = postgres.url;
    this.emit({ type: "postgres", adopted: postgres.adopted, seconds: (Date.now() - began) / 1000 });
    const onRestart = () => this.emit({ type: "postgres-restarted" });
    this.watching.push(keepPostgres(this.home, postgres, { settings, signal: this.stopping.signal, onRestart }));
  }

  private startStudent(name: StudentName, address: string, threads: number): Child {
    const path = [join(repository, "services/student"), process.env.PYTHONPATH].filter(Boolean).join(delimiter);
    return this.add(name, {
      command: this.python(),
      args: ["-m", "tutelage_student"],
      env: {
        STUDENT_THREADS: `${threads}`,
        ...this.environment(name),
        STUDENT_LISTEN: address,
        STUDENT_STOP_WITH_STDIN: "true",
        PYTHONPATH: path,
      },
      isHealthy: this.probe(address),
      // A minute: a look at a process that does not answer takes 2.5 s. Its trainings go on from their resume points.
      replaceAfterLooks: 24,
    });
  }

  private startService(name: DomainService | "gateway", env: NodeJS.ProcessEnv, isHealthy: () => Promise<boolean>) {
    this.add(name, {
      command: process.execPath,
      args: ["--enable-source-maps", join(repository, "services", name, "dist/main.js")],
      env: { ...this.environment(name), DATABASE_URL: this.databaseUrl, ...env },
      isHealthy,
    });
  }

  private add(name: ServiceName, plan: Omit<Child["plan"], "name" | "logFile" | "stopMs">): Child {
    const logFile = join(this.logDirectory, `${name}.log`);
    const child = new Child({ ...plan, name, logFile, stopMs: stopMs[isStudent(name) ? "student" : name] }, (event) => {
      // A home that went away, or a full disk: the children run on, only the next start knows less.
      if (event.type === "started") this.noteChildren().catch(() => {});
      this.emit(event);
    });
    this.children.set(name, child);
    child.start();
    return child;
  }

  private probe(address: string): () => Promise<boolean> {
    const probe = healthProbe(address);
    this.probes.push(probe);
    return async () => (await probe.check()) === "serving";
  }

  /** What a child sees of this process's environment: the teacher all, as its profiles name any variable as a key. */
  private environment(name: ServiceName): NodeJS.ProcessEnv {
    const given = Object.entries({ ...process.env, ...this.options.environment });
    const seen = given.filter(([variable]) => name === "teacher" || isFor(name, variable));
    const addresses = Object.entries(this.addresses).map(([name, address]) => [
      `${name.toUpperCase()}_ADDRESS`,
      address,
    ]);
    return {
      ARTIFACT_ROOT: join(this.home, "artifacts"),
      ...Object.fromEntries(seen),
      TUTELAGE_HOME: this.home,
      TUTELAGE_PYTHON: this.python(),
      ...Object.fromEntries(addresses),
    };
  }

  private python(): string {
    const set = this.options.environment?.TUTELAGE_PYTHON ?? process.env.TUTELAGE_PYTHON;
    if (set) return set;
    const ours = join(repository, ".venv", process.platform === "win32" ? "Scripts/python.exe" : "bin/python");
    return existsSync(ours) ? ours : "python3";
  }

  /** Should we be killed, the next start knows what to end. */
  private async noteChildren(): Promise<void> {
    const children = await Promise.all(
      [...this.children].map(async ([name, { pid }]) => {
        const started = pid === undefined ? undefined : await startOf(pid);
        return pid === undefined || started === undefined ? [] : [{ name, pid, started }];
      }),
    );
    if (this.stopped === undefined) await this.lock.note({ children: children.flat() });
  }

  private emit(event: StackEvent): void {
    this.options.onEvent?.(lineOf(event), event);
  }
}

function isStudent(name: ServiceName): name is StudentName {
  return name.startsWith("student");
}

/** An event for a person to read. */
function lineOf(event: StackEvent): string {
  switch (event.type) {
    case "postgres":
      return `postgres ${event.adopted ? "was running already" : `ready after ${event.seconds.toFixed(1)} s`}`;
    case "postgres-restarted":
      return "postgres had died and runs again";
    case "started":
      return `${event.name} started (process ${event.pid})`;
    case "healthy":
      return `${event.name} ready${event.seconds > 0 ? ` after ${event.seconds.toFixed(1)} s` : " again"}`;
    case "unhealthy":
      return `${event.name} does not answer`;
    case "replaced":
      return `${event.name} has not answered for long; it is ended, to be started again`;
    case "exited":
      return `${event.name} died (${event.how}); starting it again in ${event.restartInMs / 1000} s`;
    case "stopped":
      return `${event.name} stopped`;
  }
}
