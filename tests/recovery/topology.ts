/**
 * Every service as processes of their own, replicas of those that work on runs
 * and of the student, on one Postgres, with proxies between; each process is started again
 * when it dies, as Kubernetes would.
 */
import { chmod, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { healthProbe } from "@tutelage/platform/health";
import { Child } from "@tutelage/standalone/child";
import { choosePorts } from "@tutelage/standalone/ports";
import { type EmbeddedPostgres, erasePostgres, keepPostgres, startPostgres } from "@tutelage/standalone/postgres";
import pg from "pg";
import { postmasterOf } from "../support/postmaster.js";
import { startProxy, type TcpProxy } from "../support/proxy.js";
import { writeTinyModel } from "../support/realstudent.js";
import { watchWrites } from "./evidence.js";
import type { Kind, Link } from "./plan.js";

const root = fileURLToPath(new URL("../../", import.meta.url));
const startTimeoutMs = 120_000;

/** From when to when something was down, in ms since 1970. */
export interface Span {
  from: number;
  to: number;
}

/** One process of a kind. Its name is its key at the teacher, too. */
export interface Member {
  name: string;
  kind: Kind;
  /** The process now; undefined between death and restart. */
  pid(): number | undefined;
}

export interface Topology {
  url: string;
  addresses: { evaluation: string };
  /** Postgres itself, not through the proxy. */
  databaseUrl: string;
  members: readonly Member[];
  /** When Postgres did not answer. */
  postgresDown: readonly Span[];
  logDirectory: string;
  kill(member: Member): void;
  /** SIGSTOP; the returned function lets it go on. */
  pause(member: Member): () => void;
  /** Connections that are open over a link. */
  connections(link: Link): number;
  /** Resets them; gives how many. */
  cut(link: Link): number;
  stop(): Promise<void>;
}

export interface TopologyOptions {
  home: string;
  /** Where the teacher's proxy is to listen, so that two runs ask the same address. */
  teacherPort: number;
  /** Where the teacher listens. */
  teacherServerPort: number;
  replicas: Readonly<Record<ReplicatedKind, number>>;
  /** Whoever was killed is started again at once, however often; without it with the growing waits of Kubernetes. */
  restartsAtOnce?: boolean;
}

/** Services that work on runs. */
const runKinds = ["campaigns", "training", "evaluation", "teacher"] as const;
type ReplicatedKind = (typeof runKinds)[number] | "student";

const recipe = `{ method: lora, lora_rank: 4, lora_alpha: 8, lora_dropout: 0, trained_layers: 1, epochs: 4, min_steps: 8,
      exact_steps: 0, batch_rows: 8, micro_batch_tokens: 2048, learning_rate: 0.01, warmup_share: 0.1, weight_decay: 0,
      max_grad_norm: 1, average_share: 0 }`;
/** Micro-USD per token of prompt and completion. */
export const pricePerToken = { prompt: 1, completion: 2 };

async function writeProfiles(home: string, model: string, teacherPort: number): Promise<void> {
  await writeFile(
    join(home, "students.yaml"),
    `profiles:\n  tiny:\n    description: Two random layers.\n    model: ${model}\n    recipe: ${recipe}\n`,
  );
  await writeFile(
    join(home, "teachers.yaml"),
    `profiles:
  - name: scripted
    provider: openai-compatible
    description: The test's own server.
    model: test-model
    base_url: http://127.0.0.1:${teacherPort}/v1
    api_key: env:CHAOS_TEACHER_KEY
    api: chat
    prompt_form: chat
    seed_field: seed
    max_tokens: 64
    max_concurrency: 4
    max_retries: 8
    prices: { prompt_micro_usd_per_million_tokens: ${pricePerToken.prompt * 1e6}, completion_micro_usd_per_million_tokens: ${pricePerToken.completion * 1e6} }
`,
  );
}

export async function startTopology(options: TopologyOptions): Promise<Topology> {
  const { home } = options;
  await mkdir(join(home, "logs"), { recursive: true });
  await chmod(home, 0o755);
  await writeProfiles(home, await writeTinyModel(join(home, "tiny")), options.teacherPort);
  const topology = new RunningTopology(options);
  try {
    await topology.start();
    return topology;
  } catch (error) {
    await topology.stop();
    throw error;
  }
}

class RunningTopology implements Topology {
  url = "";
  addresses = { evaluation: "" };
  databaseUrl = "";
  readonly members: (Member & { child?: Child })[] = [];
  readonly postgresDown: Span[] = [];
  readonly logDirectory: string;
  private readonly proxies = new Map<Link, TcpProxy[]>();
  private readonly stopping = new AbortController();
  private readonly closers: (() => Promise<void> | void)[] = [];
  private postgres: EmbeddedPostgres | undefined;

  constructor(private readonly options: TopologyOptions) {
    this.logDirectory = join(options.home, "logs");
  }

  async start(): Promise<void> {
    const { home, replicas } = this.options;
    const replicaCount = Object.values(replicas).reduce((a, b) => a + b, 0);
    const ports = (await choosePorts(3 + replicaCount)).values();
    const port = () => ports.next().value as number;
    const local = (chosen: number) => `127.0.0.1:${chosen}`;

    // Commits survive the death of Postgres, not that of the machine.
    const settings = { fsync: "off", full_page_writes: "off", port: String(port()) };
    const postgres = await startPostgres(home, settings);
    this.postgres = postgres;
    this.databaseUrl = postgres.url;
    this.closers.push(() => erasePostgres(home));
    const keeping = keepPostgres(home, postgres, { settings, signal: this.stopping.signal, onRestart: () => {} });
    this.closers.push(() => keeping);
    this.members.push({ name: "postgres", kind: "postgres", pid: () => this.postmaster });
    await this.notePostmaster();
    // Interrupted, a test ends without stop(); the other processes notice that by themselves, Postgres does not.
    const cutShort = () => {
      if (this.postmaster !== undefined) process.kill(this.postmaster, "SIGQUIT");
    };
    process.once("exit", cutShort);
    this.closers.push(() => {
      process.off("exit", cutShort);
    });

    const toPostgres = await startProxy(postgres.port);
    const studentPorts = Array.from({ length: replicas.student }, port);
    const toStudents = await Promise.all(studentPorts.map((studentPort) => startProxy(studentPort)));
    const toTeacher = await startProxy(this.options.teacherServerPort, this.options.teacherPort);
    this.proxies.set("postgres", [toPostgres]).set("student", toStudents).set("teacher", [toTeacher]);
    for (const proxy of [toPostgres, ...toStudents, toTeacher]) this.closers.push(() => proxy.stop());

    for (const [index, studentPort] of studentPorts.entries()) {
      this.startStudent(`student-${index + 1}`, local(studentPort));
    }
    const addresses: Record<string, string> = { DATASETS_ADDRESS: local(port()) };
    const common = {
      DATABASE_URL: postgres.url.replace(`:${postgres.port}/`, `:${toPostgres.port}/`),
      STUDENT_ADDRESS: toStudents.map((proxy) => local(proxy.port)).join(","),
      STUDENT_PROFILES: join(home, "students.yaml"),
      TEACHER_PROFILES: join(home, "teachers.yaml"),
    };
    const listens = new Map<string, { kind: Kind; listen: string }>();
    listens.set("datasets", { kind: "datasets", listen: addresses.DATASETS_ADDRESS as string });
    for (const kind of runKinds) {
      const own = Array.from({ length: replicas[kind] }, () => local(port()));
      addresses[`${kind.toUpperCase()}_ADDRESS`] = own.join(",");
      for (const [index, listen] of own.entries()) listens.set(`${kind}-${index + 1}`, { kind, listen });
    }
    this.addresses = { evaluation: addresses.EVALUATION_ADDRESS as string };
    for (const [name, { kind, listen }] of listens) {
      const env = { ...common, ...addresses, [`${kind.toUpperCase()}_LISTEN`]: listen, CHAOS_TEACHER_KEY: name };
      this.startService(name, kind, env, this.probe(listen));
    }
    const gateway = local(port());
    this.url = `http://${gateway}`;
    this.startService("gateway", "gateway", { ...common, ...addresses, GATEWAY_LISTEN: gateway }, () => this.answers());
    await Promise.all(this.members.map((member) => member.child?.healthy(startTimeoutMs, this.stopping.signal)));
    await watchWrites(this.databaseUrl);
  }

  kill(member: Member): void {
    const pid = member.pid();
    if (pid === undefined) throw new Error(`${member.name} does not run.`);
    process.kill(pid, "SIGKILL");
    if (member.kind === "postgres") void this.timePostgres();
    else if (this.options.restartsAtOnce) void this.members.find(({ name }) => name === member.name)?.child?.restart();
  }

  pause(member: Member): () => void {
    const pid = member.pid();
    if (pid === undefined) throw new Error(`${member.name} does not run.`);
    process.kill(pid, "SIGSTOP");
    return () => {
      // It may have been killed meanwhile.
      if (member.pid() === pid) process.kill(pid, "SIGCONT");
    };
  }

  connections(link: Link): number {
    return this.sum(link, (proxy) => proxy.open);
  }

  cut(link: Link): number {
    return this.sum(link, (proxy) => proxy.cut());
  }

  private sum(link: Link, count: (proxy: TcpProxy) => number): number {
    return (this.proxies.get(link) ?? []).reduce((sum, proxy) => sum + count(proxy), 0);
  }

  async stop(): Promise<void> {
    this.stopping.abort();
    await Promise.all(this.members.map((member) => member.child?.stop()));
    for (const close of this.closers.reverse()) await close();
  }

  private postmaster: number | undefined;

  private async notePostmaster(): Promise<void> {
    this.postmaster = await postmasterOf(this.postgres as EmbeddedPostgres);
  }

  /** Notes how long Postgres is down, and who it is afterwards. */
  private async timePostgres(): Promise<void> {
    const span = { from: Date.now(), to: Number.POSITIVE_INFINITY };
    this.postgresDown.push(span);
    this.postmaster = undefined;
    while (!this.stopping.signal.aborted) {
      await sleep(100);
      const client = new pg.Client({ connectionString: this.databaseUrl, connectionTimeoutMillis: 2_000 });
      client.on("error", () => {});
      const answers = await client.connect().then(
        () => true,
        () => false,
      );
      await client.end().catch(() => {});
      if (!answers) continue;
      span.to = Date.now();
      await this.notePostmaster();
      return;
    }
  }

  private startStudent(name: string, listen: string): void {
    const folder = join(root, "services/student");
    this.add(name, "student", {
      command: join(root, ".venv/bin/python"),
      args: ["-m", "tutelage_student"],
      env: {
        ...process.env,
        TUTELAGE_HOME: this.options.home,
        PYTHONPATH: folder,
        STUDENT_LISTEN: listen,
        STUDENT_THREADS: "1",
        STUDENT_DEVICE: "cpu",
        STUDENT_STOP_WITH_STDIN: "true",
        OMP_WAIT_POLICY: "passive",
      },
      isHealthy: this.probe(listen),
    });
  }

  private startService(name: string, kind: Kind, env: NodeJS.ProcessEnv, isHealthy: () => Promise<boolean>): void {
    this.add(name, kind, {
      command: process.execPath,
      args: ["--enable-source-maps", join(root, "services", kind, "dist/main.js")],
      env: { ...process.env, TUTELAGE_HOME: this.options.home, LOG_LEVEL: "info", ...env },
      isHealthy,
    });
  }

  private add(name: string, kind: Kind, plan: Omit<Child["plan"], "name" | "logFile" | "stopMs">): void {
    const child = new Child(
      { ...plan, name, logFile: join(this.logDirectory, `${name}.log`), stopMs: 3_000 },
      () => {},
    );
    this.members.push({ name, kind, child, pid: () => child.pid });
    child.start();
    void child.watchHealth(this.stopping.signal);
  }

  private probe(address: string): () => Promise<boolean> {
    const probe = healthProbe(address);
    this.closers.push(() => probe.close());
    return async () => (await probe.check()) === "serving";
  }

  private async answers(): Promise<boolean> {
    return await fetch(`${this.url}/health`, { signal: AbortSignal.timeout(2_000) }).then(
      (response) => response.ok,
      () => false,
    );
  }
}
