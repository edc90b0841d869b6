/** A campaign is killed at every boundary of its steps, before and after the commit, and comes out as if nothing had happened. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { choosePorts } from "@tutelage/standalone/ports";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startTeacherServer, type TeacherServer } from "../support/teacher-server.js";
import { labelOf } from "../support/tinytask.js";
import { until } from "../support/waiting.js";
import { asking, type CampaignEnd, campaignEnds } from "./evidence.js";
import { Gates } from "./gates.js";
import { startCampaign } from "./start.js";
import { startTopology, type Topology } from "./topology.js";
import { type PlannedCampaign, planCampaigns } from "./workload.js";

const slow = 600_000;
const ampleMicroUsd = 100_000_000;
const [planned] = planCampaigns(1, 1, 1) as [PlannedCampaign];
let home: string;
let teacher: TeacherServer;
let topology: Topology;

beforeAll(async () => {
  home = process.env.CHAOS_HOME ?? (await mkdtemp(join(tmpdir(), "tutelage-steps-")));
  const [teacherPort] = (await choosePorts(1)) as [number];
  teacher = await startTeacherServer({ labelOf });
  // Somebody is always there to take over while the others start.
  const replicas = { campaigns: 3, training: 1, evaluation: 1, teacher: 1, student: 2 };
  const teacherServerPort = teacher.port;
  topology = await startTopology({ home, teacherPort, teacherServerPort, replicas, restartsAtOnce: true });
}, slow);
afterAll(async () => {
  await topology?.stop();
  await teacher?.stop();
  if (process.env.CHAOS_HOME === undefined) await rm(home, { recursive: true, force: true });
}, slow);

const start = (tag: string) =>
  startCampaign(topology.url, { campaign: { ...planned, tag }, maxCostMicroUsd: ampleMicroUsd });

async function ended(tag: string): Promise<CampaignEnd> {
  let found: CampaignEnd | undefined;
  await until(async () => {
    found = (await campaignEnds(topology.databaseUrl)).find((one) => one.tag === tag);
    return found !== undefined && !["QUEUED", "RUNNING"].includes(found.status);
  }, slow);
  return found as CampaignEnd;
}

/** Names of a campaign's steps, without the ids in them. */
async function stepsOf(campaignId: string): Promise<string[]> {
  const { rows } = await asking(topology.databaseUrl, (client) =>
    client.query("select name from campaigns.steps where campaign_id = $1 order by finished_at", [campaignId]),
  );
  return rows.map(({ name }) => name.replace(/[0-9a-f-]{36}/, "ID"));
}

/** Events but those that tell of deaths. */
const told = ({ events }: CampaignEnd) =>
  events.map(({ type }) => type).filter((type) => type !== "campaign.taken_over");

test(
  "killed before and after the commit of each step, a campaign does each once and has the same rows",
  async () => {
    await start("calm");
    const calm = await ended("calm");
    expect(calm).toMatchObject({ status: "SUCCEEDED", failure: "" });
    const steps = await stepsOf(calm.id);
    const callsBefore = teacher.calls.length;

    const gates = await Gates.build(topology.databaseUrl, "killed");
    await start("killed");
    const id = (await campaignEnds(topology.databaseUrl)).find(({ tag }) => tag === "killed")?.id ?? "";
    const killedAt: string[] = [];
    for (;;) {
      const boundary = await gates.next(id, 120_000);
      if (boundary === undefined) break;
      const holder = topology.members.find((member) => member.pid() === boundary.holder);
      if (holder === undefined) throw new Error(`Nobody of ours holds the campaign: process ${boundary.holder}.`);
      topology.kill(holder);
      killedAt.push(`${boundary.side} ${boundary.step.replace(/[0-9a-f-]{36}/, "ID")}`);
      await gates.pass(boundary, id);
    }
    await gates.remove();

    const killed = await ended("killed");
    expect(killed).toMatchObject({ status: "SUCCEEDED", failure: "" });
    expect(killed.digests).toEqual(calm.digests);
    expect(killed.rowIds).toEqual(calm.rowIds);
    expect(told(killed)).toEqual(told(calm));
    expect(killed.events.map(({ sequence }) => sequence)).toEqual(killed.events.map((_, index) => index + 1));
    // What students do side by side ends in any order.
    expect((await stepsOf(id)).sort()).toEqual(steps.sort());
    // The same questions as before: all answers are there.
    expect(teacher.calls.length).toBe(callsBefore);
    const boundaries = [...steps.flatMap((step) => [`before ${step}`, `after ${step}`]), "before end"];
    expect(killedAt.sort()).toEqual(boundaries.sort());
  },
  slow,
);
