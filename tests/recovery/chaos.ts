/** One chaos run: the same campaigns undisturbed, then while things break; and what both left. */
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { choosePorts } from "@tutelage/standalone/ports";
import { startTeacherServer } from "../support/teacher-server.js";
import { forecastOf, type TeacherWeather, teacherWeather } from "../support/teacher-weather.js";
import { labelOf } from "../support/tinytask.js";
import { TeacherAccount } from "./account.js";
import { drive, type Happened } from "./driver.js";
import { campaignEnds, fencedWrites, openRuns, unevenEvaluations } from "./evidence.js";
import { type Fault, planFaults } from "./plan.js";
import type { CampaignOrder } from "./start.js";
import { startTopology, type Topology, type TopologyOptions } from "./topology.js";
import { judge, type Report } from "./verdict.js";
import { planCampaigns } from "./workload.js";

export interface ChaosOptions {
  seed: number;
  campaigns: number;
  /** Of each campaign. */
  iterations: number;
  kills: number;
  stops: number;
  cuts: number;
  meanGapMs: number;
}

const weather: TeacherWeather = {
  seed: 6,
  shares: {
    busy: 0.05,
    busySeconds: 0.02,
    broken: 0.05,
    overloaded: 0.02,
    reset: 0.04,
    halfReply: 0.04,
    halfJson: 0.03,
  },
  mostFaults: 2,
  latencyMs: { from: 100, to: 800 },
};
/** Pays for everything, what was in flight at a crash and counts in full included. */
const ampleMicroUsd = 100_000_000;
const single = { campaigns: 1, training: 1, evaluation: 1, teacher: 2, student: 2 };
const double = { campaigns: 2, training: 2, evaluation: 2, teacher: 2, student: 2 };
/** A tight cap, as a share of what the campaign costs undisturbed. */
const tightShare = 0.6;

export async function chaos(options: ChaosOptions, say: (line: string) => void): Promise<Report & { seconds: number }> {
  const began = performance.now();
  const kept = process.env.CHAOS_HOME;
  const home = kept ?? (await mkdtemp(join(tmpdir(), "tutelage-chaos-")));
  await mkdir(home, { recursive: true });
  const [teacherPort] = (await choosePorts(1)) as [number];
  const campaigns = planCampaigns(options.seed, options.campaigns, options.iterations);
  const orders = (capOf: (tag: string) => number): CampaignOrder[] =>
    campaigns.map((campaign) => ({ campaign, maxCostMicroUsd: capOf(campaign.tag) }));
  const tight = new Set(campaigns.filter(({ isTight }) => isTight).map(({ tag }) => tag));
  try {
    say(`${campaigns.length} campaigns undisturbed`);
    const calm = await run(
      { home: join(home, "calm"), teacherPort, replicas: single },
      orders(() => ampleMicroUsd),
      [],
      say,
    );
    const failed = calm.ends.filter(({ status }) => status !== "SUCCEEDED");
    if (failed.length > 0)
      throw new Error(
        `Undisturbed campaigns failed: ${failed.map(({ tag, failure }) => `${tag} ${failure}`).join("; ")}`,
      );
    say(`undisturbed after ${Math.round((performance.now() - began) / 1_000)} s; now with faults`);
    const capOf = (tag: string) =>
      tight.has(tag) ? Math.round((calm.account.billedMicroUsd().get(tag) ?? 0) * tightShare) : ampleMicroUsd;
    const faults = planFaults(options);
    const hard = await run({ home: join(home, "hard"), teacherPort, replicas: double }, orders(capOf), faults, say);
    for (const line of hard.happened.stuck) say(`stuck: ${line}`);
    for (const { tag, status, failure } of hard.ends) if (status === "FAILED") say(`failed: ${tag}: ${failure}`);
    const report = judge({
      ...hard,
      calmEnds: calm.ends,
      tight,
      capsMicroUsd: new Map(campaigns.map(({ tag }) => [tag, capOf(tag)])),
      billedMicroUsd: hard.account.billedMicroUsd(),
      repaidCalls: hard.account.repaidCount,
      inFlightAtKills: hard.account.inFlightCount,
    });
    return { ...report, seconds: Math.round((performance.now() - began) / 1_000) };
  } finally {
    if (kept === undefined) await rm(home, { recursive: true, force: true });
  }
}

/** Runs the campaigns on a stack of their own, and reads what came of them. */
async function run(
  where: Omit<TopologyOptions, "teacherServerPort">,
  orders: readonly CampaignOrder[],
  faults: readonly Fault[],
  say: (line: string) => void,
) {
  const server = await startTeacherServer({ labelOf, behave: teacherWeather(weather) });
  const account = new TeacherAccount(server, (call) => forecastOf(weather, call).fault === undefined);
  let topology: Topology | undefined;
  try {
    topology = await startTopology({ ...where, teacherServerPort: server.port });
    const happened: Happened = await drive(topology, orders, { faults, account, say });
    const url = topology.databaseUrl;
    return {
      account,
      happened,
      ends: await campaignEnds(url),
      openRuns: await openRuns(url),
      writes: await fencedWrites(url),
      unevenEvaluations: await unevenEvaluations(url),
      postgresDown: topology.postgresDown,
    };
  } finally {
    await topology?.stop();
    await server.stop();
  }
}
