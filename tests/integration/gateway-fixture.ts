/** The gateway on a free port, before the real datasets service and stand-ins of the others that speak real gRPC. */
import { EventEmitter, once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { settings as datasetsSettings, start as startDatasets } from "@tutelage/datasets/start";
import { gatewaySettings, start as startGateway } from "@tutelage/gateway/start";
import { notFound, TutelageError } from "@tutelage/platform/errors";
import { type Served, serve, served } from "@tutelage/platform/grpc";
import { createLog } from "@tutelage/platform/log";
import {
  Campaign,
  type CampaignEvent,
  CampaignsServiceDefinition,
  type CampaignsServiceImplementation,
  type ForkCampaignRequest,
  type ListCandidatesRequest,
  type StartCampaignRequest,
} from "@tutelage/proto/campaigns/v1/campaigns";
import { EvaluationServiceDefinition, type PredictRequest } from "@tutelage/proto/evaluation/v1/evaluation";
import { RunStatus } from "@tutelage/proto/run/v1/run";
import { TuningMethod } from "@tutelage/proto/student/v1/student";
import {
  type SetMonthBudgetRequest,
  TeacherProfile,
  TeacherServiceDefinition,
} from "@tutelage/proto/teacher/v1/teacher";
import { StudentProfile, TrainingServiceDefinition } from "@tutelage/proto/training/v1/training";
import type { CompatServiceDefinition } from "nice-grpc";
import { config } from "../support/config.js";
import { testDatabaseUrl } from "../support/database.js";
import { recordingLog } from "../support/routes.js";

export const log = createLog("test", "fatal");

/** Campaigns in memory: what was asked of the service, and what a test makes of it. */
export class StandInCampaigns {
  readonly started: StartCampaignRequest[] = [];
  readonly forked: ForkCampaignRequest[] = [];
  readonly campaigns = new Map<string, Campaign>();
  readonly events: CampaignEvent[] = [];
  readonly candidateRequests: ListCandidatesRequest[] = [];
  watchers = 0;
  private readonly changes = new EventEmitter().setMaxListeners(0);

  put(campaign: Campaign): string {
    const id = campaign.run?.id ?? "";
    this.campaigns.set(id, campaign);
    return id;
  }

  /** Adds an event, or only tells of progress. */
  tell(type?: string, payload: object = {}): void {
    if (type !== undefined) {
      const sequence = this.events.length + 1;
      this.events.push({ sequence, type, at: new Date(), payloadJson: JSON.stringify(payload) });
    }
    this.changes.emit("change");
  }

  readonly implementation: Partial<CampaignsServiceImplementation> = {
    startCampaign: async (request) => {
      this.started.push(request);
      const id = crypto.randomUUID();
      const campaign = Campaign.fromPartial({ run: { id, status: RunStatus.QUEUED, createdAt: new Date() }, request });
      this.put(campaign);
      return campaign;
    },
    getCampaign: async ({ id }) => this.find(id),
    listCampaigns: async () => ({ campaigns: [...this.campaigns.values()], nextCursor: "next" }),
    cancelCampaign: async ({ id }) => {
      const campaign = this.find(id);
      if (campaign.run !== undefined) campaign.run.cancelRequested = true;
      if (campaign.run?.status === RunStatus.RUNNING) campaign.run.status = RunStatus.CANCELLING;
      return campaign;
    },
    pauseCampaign: async ({ id }) => {
      const campaign = this.find(id);
      if (campaign.run?.status === RunStatus.RUNNING) campaign.run.status = RunStatus.PAUSING;
      return campaign;
    },
    resumeCampaign: async ({ id }) => this.queue(id),
    resumeExhaustedCampaigns: async () => ({ resumed: 0 }),
    forkCampaign: async (request) => {
      this.forked.push(request);
      const run = { id: crypto.randomUUID(), status: RunStatus.QUEUED, createdAt: new Date() };
      const forkedFrom = { campaignId: request.id, iteration: request.iteration };
      const campaign = Campaign.fromPartial({ run, request: this.find(request.id).request, forkedFrom });
      this.put(campaign);
      return campaign;
    },
    retryCampaign: async ({ id }) => this.queue(id),
    listIterations: async () => ({ iterations: [] }),
    listCandidates: async (request) => {
      this.candidateRequests.push(request);
      return { candidates: [], nextCursor: "more" };
    },
    watchCampaign: ({ id, afterSequence }, { signal }) => this.watch(id, afterSequence, signal),
  };

  private async *watch(id: string, afterSequence: number, signal: AbortSignal) {
    this.watchers++;
    try {
      let told = afterSequence;
      yield { event: undefined, campaign: this.find(id) };
      while (!signal.aborted) {
        const campaign = this.find(id);
        for (const event of this.events.slice(told)) {
          told = event.sequence;
          yield { event, campaign };
        }
        if (campaign.run?.status === RunStatus.SUCCEEDED) return;
        await once(this.changes, "change", { signal });
        yield { event: undefined, campaign: this.find(id) };
      }
    } finally {
      this.watchers--;
    }
  }

  private queue(id: string): Campaign {
    const campaign = this.find(id);
    Object.assign(campaign.run ?? {}, { status: RunStatus.QUEUED, rest: undefined, failure: undefined });
    return campaign;
  }

  private find(id: string): Campaign {
    const campaign = this.campaigns.get(id);
    if (campaign === undefined) throw notFound("campaign", id);
    return campaign;
  }
}

/** A service of which only some methods are there. */
export function standIn<Definition extends CompatServiceDefinition>(definition: Definition, some: object): Served {
  const others = Object.keys(definition.methods).map((name) => [
    name,
    () => {
      throw new TutelageError("unimplemented", `${name} has no stand-in.`);
    },
  ]);
  return served(definition, { ...Object.fromEntries(others), ...some } as never);
}

export const studentProfile = StudentProfile.fromPartial({
  name: "smollm2-135m",
  model: "package:module/model.gguf",
  description: "Small.",
  recipe: { method: TuningMethod.LORA, batchRows: 8, microBatchTokens: 2048, learningRate: 0.001, maxGradNorm: 1 },
});
export const teacherProfile = TeacherProfile.fromPartial({
  name: "gemma3-270m",
  provider: "embedded",
  model: "package:module/model.gguf",
  description: "Smaller than a teacher should be.",
  scoresLabels: true,
});

/** A month's budget in memory, of which nothing is used. */
function monthBudget(...names: string[]) {
  const caps = new Map(names.map((name) => [name, 0]));
  const getMonthBudget = async () => ({
    month: "2026-11",
    lines: [...caps].map(([name, cap]) => ({ name, used: 0, cap })),
  });
  const setMonthBudget = async (request: SetMonthBudgetRequest) => {
    for (const { name, cap } of request.caps) caps.set(name, cap);
    return await getMonthBudget();
  };
  return { getMonthBudget, setMonthBudget };
}

export async function startFixture(environment: NodeJS.ProcessEnv = {}) {
  const home = await mkdtemp(join(tmpdir(), "tutelage-gateway-"));
  const databaseUrl = await testDatabaseUrl();
  const shared = { TUTELAGE_HOME: home, LOG_LEVEL: "fatal" };
  const datasets = await startDatasets(
    config(datasetsSettings, { ...shared, DATABASE_URL: databaseUrl, DATASETS_LISTEN: "127.0.0.1:0" }),
  );
  const campaigns = new StandInCampaigns();
  const predictions: PredictRequest[] = [];
  const standIns = await Promise.all(
    [
      standIn(CampaignsServiceDefinition, campaigns.implementation),
      standIn(EvaluationServiceDefinition, {
        predict: async (request: PredictRequest) => {
          predictions.push(request);
          return {
            predictions: request.rows.map(({ id }) => ({
              rowId: id,
              text: "billing",
              logProbability: Math.log(0.75),
              labelScores: [{ label: "billing", logProbability: Math.log(0.75) }],
              tooLong: false,
            })),
          };
        },
      }),
      standIn(TrainingServiceDefinition, {
        listStudentProfiles: async () => ({ profiles: [studentProfile] }),
        ...monthBudget("training_seconds"),
      }),
      standIn(TeacherServiceDefinition, {
        listTeacherProfiles: async () => ({ profiles: [teacherProfile] }),
        ...monthBudget("teacher_calls", "teacher_tokens", "cost_micro_usd"),
      }),
    ].map((service) => serve({ listen: "127.0.0.1:0", services: [service], log })),
  );
  const [campaignsServer, evaluation, training, teacher] = standIns;
  const addresses = {
    DATASETS_ADDRESS: datasets.address,
    CAMPAIGNS_ADDRESS: campaignsServer?.address,
    EVALUATION_ADDRESS: evaluation?.address,
    TRAINING_ADDRESS: training?.address,
    TEACHER_ADDRESS: teacher?.address,
  };
  const gateway = await startGateway(
    config(gatewaySettings, { ...shared, ...addresses, GATEWAY_LISTEN: "127.0.0.1:0", ...environment }),
    recordingLog(),
  );
  return {
    home,
    addresses,
    url: `http://${gateway.address}`,
    gateway,
    campaigns,
    predictions,
    stopCampaigns: () => campaignsServer?.stop(100),
    stop: async () => {
      await gateway.stop();
      await Promise.all(standIns.map((server) => server.stop(100)));
      await datasets.stop();
      await rm(home, { recursive: true, force: true });
    },
  };
}

export type Fixture = Awaited<ReturnType<typeof startFixture>>;

/** A valid body of POST /v1/campaigns but for the dataset. */
export const campaignBody = {
  name: "support",
  task: {
    name: "support-intents",
    kind: "classification",
    prompt_template: "Message: {input}\nIntent:",
    labels: [{ name: "billing", description: "about money" }, { name: "returns" }],
  },
  student_profile: "smollm2-135m",
  teacher_profile: "gemma3-270m",
};
