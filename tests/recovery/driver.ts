/** Starts the campaigns of a run one after another, breaks things by plan meanwhile, and waits for the end. */
import { setTimeout as sleep } from "node:timers/promises";
import { isDatabaseAway } from "@tutelage/platform/database";
import type { TeacherAccount } from "./account.js";
import { asking, type Held, heldBy, openCampaigns } from "./evidence.js";
import { follow } from "./follow.js";
import type { Fault, Kind, Link } from "./plan.js";
import { type CampaignOrder, startCampaign } from "./start.js";
import type { Member, Topology } from "./topology.js";

export interface Kill {
  kind: Kind;
  name: string;
  /** In ms since 1970. */
  at: number;
  /** What it held when it died. */
  held: Held[];
}

export interface Happened {
  kills: Kill[];
  stops: { name: string; at: number; forMs: number }[];
  cuts: { link: Link; connections: number }[];
  /** Campaigns that did not end, with what they did last. */
  stuck: string[];
  /** By tag, the sequence numbers of the events that a user who follows the campaign was told. */
  followed: Map<string, number[]>;
}

export interface DriverOptions {
  faults: readonly Fault[];
  account: TeacherAccount;
  say: (line: string) => void;
}

/** So many campaigns are under way at first; later ones follow as the faults pass, so that every fault meets some. */
const firstCampaigns = 6;
/** Where fewer are under way, the next ones come sooner. */
const leastOpen = 3;
/** Without a new step of any campaign for this long, what is left is stuck. */
const patienceMs = 120_000;
/** Who follows a campaign that has ended has heard the last of it within this. */
const lastEventMs = 20_000;
/** A reply is stored within this, while Postgres answers. */
const storedWithinMs = 500;
/** How often the victim is a replica that holds a lease. */
const preferHolder = 0.9;
/** The blow waits this long for a victim that holds a lease, or for connections to cut, while there are campaigns. */
const worthwhileMs = 10_000;
const leaseKinds: ReadonlySet<Kind> = new Set(["campaigns", "training", "evaluation", "teacher"]);

export async function drive(
  topology: Topology,
  orders: readonly CampaignOrder[],
  options: DriverOptions,
): Promise<Happened> {
  const driver = new Driver(topology, options);
  const queue = [...orders];
  const starting: Promise<void>[] = [];
  const following: Promise<void>[] = [];
  const enough = new AbortController();
  const startAndFollow = async (order: CampaignOrder) => {
    const id = await startCampaign(topology.url, order);
    const hear = async () => {
      driver.happened.followed.set(order.campaign.tag, await follow(topology.url, id, enough.signal));
    };
    following.push(hear());
  };
  const start = (count: number) => {
    for (const order of queue.splice(0, count)) starting.push(startAndFollow(order));
  };
  start(options.faults.length === 0 ? queue.length : firstCampaigns);
  const perFault = queue.length / Math.max(1, options.faults.length);
  let due = 0;
  if (options.faults.length > 0) await Promise.race(starting);
  for (const fault of options.faults) {
    await sleep(fault.afterMs);
    const open = await openCampaigns(topology.databaseUrl).catch(() => undefined);
    if (open !== undefined) start(Math.max(0, leastOpen - open.length));
    await driver.break(fault);
    due += perFault;
    const now = Math.floor(due);
    due -= now;
    start(now);
  }
  start(queue.length);
  await Promise.all(starting);
  await driver.resumeAll();
  driver.happened.stuck = await waitForEnds(topology);
  setTimeout(() => enough.abort(), lastEventMs);
  await Promise.all(following);
  return driver.happened;
}

class Driver {
  readonly happened: Happened = { kills: [], stops: [], cuts: [], stuck: [], followed: new Map() };
  private readonly paused = new Map<string, Promise<void>>();

  constructor(
    private readonly topology: Topology,
    private readonly options: DriverOptions,
  ) {}

  async break(fault: Fault): Promise<void> {
    const { account, say } = this.options;
    if (fault.what === "cut") {
      for (const askedAt = Date.now(); this.topology.connections(fault.link) === 0; await sleep(20))
        if (!(await this.mayWait(askedAt))) break;
      if (fault.link === "teacher") account.broke(undefined, this.unstoredSince());
      const connections = this.topology.cut(fault.link);
      this.happened.cuts.push({ link: fault.link, connections });
      say(`cut ${connections} connections to ${fault.link}`);
      return;
    }
    const { member, held } = await this.victim(fault.kind, fault.draw);
    if (member.kind === "teacher") account.broke(member.name, this.unstoredSince());
    if (member.kind === "postgres") account.broke(undefined, this.unstoredSince());
    const at = Date.now();
    if (fault.what === "kill") {
      const pid = member.pid() ?? 0;
      this.topology.kill(member);
      const taken = await this.stillHeld(pid, held);
      this.happened.kills.push({ kind: member.kind, name: member.name, at, held: taken });
      say(`killed ${member.name}, which held ${taken.length} leases`);
    } else {
      const resume = this.topology.pause(member);
      this.happened.stops.push({ name: member.name, at, forMs: fault.forMs });
      say(`stopped ${member.name} for ${fault.forMs} ms, which held ${held.length} leases`);
      const { name } = member;
      this.paused.set(
        name,
        sleep(fault.forMs).then(() => {
          resume();
          this.paused.delete(name);
        }),
      );
    }
  }

  async resumeAll(): Promise<void> {
    await Promise.all(this.paused.values());
  }

  /** A process of the kind that runs, by preference one that holds a lease. */
  private async victim(kind: Kind, draw: number): Promise<{ member: Member; held: Held[] }> {
    const wantsHolder = draw < preferHolder && leaseKinds.has(kind);
    for (const askedAt = Date.now(); ; await sleep(50)) {
      const running = this.topology.members.filter(
        (member) => member.kind === kind && member.pid() !== undefined && !this.paused.has(member.name),
      );
      const found = await Promise.all(running.map(async (member) => ({ member, held: await this.heldBy(member) })));
      const alive = found.filter(({ member }) => member.pid() !== undefined);
      const holders = alive.filter(({ held }) => held.length > 0);
      if (wantsHolder && holders.length === 0 && (await this.mayWait(askedAt))) continue;
      const among = wantsHolder && holders.length > 0 ? holders : alive;
      const chosen = among[Math.floor(draw * 1_000) % Math.max(1, among.length)];
      if (chosen !== undefined) return chosen;
    }
  }

  private async mayWait(askedAt: number): Promise<boolean> {
    if (Date.now() - askedAt > worthwhileMs) return false;
    const open = await openCampaigns(this.topology.databaseUrl).catch(() => undefined);
    return open === undefined || open.length > 0;
  }

  /** Nothing while Postgres is away: nobody can say then. */
  private async heldBy(member: Member): Promise<Held[]> {
    return await heldBy(this.topology.databaseUrl, member.pid() ?? 0).catch(unlessAway([]));
  }

  /** Of what a process held when it was chosen, what it took with it: it may have ended a run since, or handed it back. */
  private async stillHeld(pid: number, held: Held[]): Promise<Held[]> {
    const now = await heldBy(this.topology.databaseUrl, pid).catch(unlessAway(held));
    return held.filter(({ runId, fence }) => now.some((one) => one.runId === runId && one.fence === fence));
  }

  /** Since when replies may be in the teacher's hands but not in Postgres. */
  private unstoredSince(): number {
    const now = Date.now();
    const recent = this.topology.postgresDown.findLast(({ to }) => to > now - 5_000);
    return Math.min(now - storedWithinMs, recent?.from ?? now) - (recent === undefined ? 0 : storedWithinMs);
  }
}

/** What is known where Postgres is away. */
function unlessAway(known: Held[]): (error: unknown) => Held[] {
  return (error) => {
    if (isDatabaseAway(error)) return known;
    throw error;
  };
}

/** Waits until every campaign has ended; gives those that get no further. */
async function waitForEnds({ databaseUrl }: Topology): Promise<string[]> {
  let seen = -1;
  let changedAt = Date.now();
  for (;;) {
    await sleep(500);
    const open = await openCampaigns(databaseUrl).catch(() => undefined);
    if (open === undefined) continue;
    if (open.length === 0) return [];
    const steps = await asking(databaseUrl, async (client) =>
      Number((await client.query("select count(*) from campaigns.steps")).rows[0].count),
    ).catch(() => seen);
    if (steps !== seen) changedAt = Date.now();
    seen = steps;
    if (Date.now() - changedAt > patienceMs)
      return open.map(({ tag, status, message }) => `${tag} ${status}: ${message}`);
  }
}
