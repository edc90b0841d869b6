/** Wires the campaigns service. */
import { join } from "node:path";
import { FileArtifactStore } from "@tutelage/platform/artifacts";
import { codeRelease } from "@tutelage/platform/coderelease";
import { hostPort, replicas, serviceSettings } from "@tutelage/platform/config";
import { openDatabase } from "@tutelage/platform/database";
import { served } from "@tutelage/platform/grpc";
import { createLog } from "@tutelage/platform/log";
import type { RunningService } from "@tutelage/platform/process";
import { Rest } from "@tutelage/platform/rest";
import { defaultLeaseTiming, Runs } from "@tutelage/platform/runs";
import { startRunService } from "@tutelage/platform/runservice";
import { CampaignsServiceDefinition } from "@tutelage/proto/campaigns/v1/campaigns";
import { WebhooksServiceDefinition } from "@tutelage/proto/campaigns/v1/webhooks";
import { StopKind } from "@tutelage/proto/run/v1/owner";
import { z } from "zod";
import { Campaign, type CampaignState, type ResolvedRequest } from "./campaign.js";
import { connectServices, retry } from "./clients.js";
import { DeletionStore } from "./deletionstore.js";
import { DeliveryStore } from "./deliverystore.js";
import { type DispatchTiming, defaultDispatchTiming, dispatch } from "./dispatcher.js";
import { stopChildren } from "./ending.js";
import { recordChanges } from "./events.js";
import { exhausted } from "./exhausted.js";
import { runCampaign } from "./loop.js";
import { NamedTasks } from "./namedtasks.js";
import { ReviewStore } from "./reviewstore.js";
import { campaignsService } from "./service.js";
import { CampaignStore } from "./store.js";
import { defaultSweepTiming, type SweepTiming, sweep } from "./sweeper.js";
import { TaskStore } from "./taskstore.js";
import { webhooksService } from "./webhookservice.js";
import { WebhookStore } from "./webhookstore.js";

export const settings = {
  ...serviceSettings,
  CAMPAIGNS_LISTEN: hostPort.default("127.0.0.1:50055"),
  DATASETS_ADDRESS: replicas.default("127.0.0.1:50051"),
  TRAINING_ADDRESS: replicas.default("127.0.0.1:50052"),
  EVALUATION_ADDRESS: replicas.default("127.0.0.1:50053"),
  TEACHER_ADDRESS: replicas.default("127.0.0.1:50054"),
  ARTIFACT_ROOT: z.string().optional(),
  // Campaigns wait for students and teachers most of the time; this many do so at once in one process.
  CAMPAIGNS_CONCURRENCY: z.coerce.number().int().min(1).max(100).default(4),
  /**
   * Days after its end for which a campaign's checkpoints stay that its outcome does not name: those of cross-fitting,
   * the bulk of the disk. 0 keeps them until the campaign is deleted.
   */
  CAMPAIGNS_KEEP_CHECKPOINTS_DAYS: z.coerce.number().min(0).max(3_650).default(7),
  /** Days for which a webhook's deliveries stay to be looked at and sent again, after they were made or given up. */
  WEBHOOKS_KEEP_DAYS: z.coerce.number().min(1).max(3_650).default(30),
};

export async function start(
  config: z.output<z.ZodObject<typeof settings>>,
  options: { sweepTiming?: Partial<SweepTiming>; dispatchTiming?: Partial<DispatchTiming> } = {},
): Promise<RunningService> {
  const log = createLog("campaigns", config.LOG_LEVEL);
  const database = await openDatabase({ url: config.DATABASE_URL, schema: "campaigns", log, hasRuns: true });
  const artifacts = new FileArtifactStore(config.ARTIFACT_ROOT ?? join(config.TUTELAGE_HOME, "artifacts"));
  const store = new CampaignStore(database);
  const tasks = new NamedTasks(new TaskStore(database));
  const runs = new Runs<ResolvedRequest, CampaignState>(database, log, defaultLeaseTiming, recordChanges(store), true);
  const services = connectServices({
    datasets: config.DATASETS_ADDRESS,
    training: config.TRAINING_ADDRESS,
    evaluation: config.EVALUATION_ADDRESS,
    teacher: config.TEACHER_ADDRESS,
  });
  const code = await codeRelease();
  const stopping = new AbortController();
  const deletions = new DeletionStore(database);
  const reviews = new ReviewStore(database, store);
  const deliveries = new DeliveryStore(database);
  const webhooks = new WebhookStore(database);
  const dispatching = dispatch({
    deliveries,
    signals: runs.signals,
    log,
    timing: { ...defaultDispatchTiming, ...options.dispatchTiming },
    signal: stopping.signal,
  });
  const sweeping = sweep({
    store,
    deletions,
    deliveries,
    keepDeliveriesDays: config.WEBHOOKS_KEEP_DAYS,
    services,
    artifacts,
    log,
    keepCheckpointsDays: config.CAMPAIGNS_KEEP_CHECKPOINTS_DAYS,
    timing: { ...defaultSweepTiming, ...options.sweepTiming },
    signal: stopping.signal,
  });
  return await startRunService({
    name: "campaigns",
    listen: config.CAMPAIGNS_LISTEN,
    served: [
      served(
        CampaignsServiceDefinition,
        campaignsService({ runs, store, tasks, services, deletions, reviews, artifacts, stopping: stopping.signal }),
      ),
      served(WebhooksServiceDefinition, webhooksService({ webhooks, deliveries })),
    ],
    runs,
    handler: async (lease) => {
      const campaign = new Campaign(lease, services, artifacts, store);
      await campaign.noteCode(code);
      const { retryOf } = lease.run.state;
      if (retryOf) {
        await retry(services, Object.values(retryOf), campaign.owner, lease.signal);
        await lease.report({}, { retryOf: null });
      }
      await campaign.teacherAbsence.stopIfLasting();
      const outcome = await runCampaign(campaign).catch(async (error: unknown) => {
        if (error instanceof Rest && error.status === "BUDGET_EXHAUSTED") throw await exhausted(campaign, runs, error);
        throw error;
      });
      return { state: { outcome, phase: "done" } };
    },
    worker: {
      concurrency: config.CAMPAIGNS_CONCURRENCY,
      abandon: (run, signal) => stopChildren(services, run, StopKind.CANCEL, signal),
      suspend: (run, signal) => stopChildren(services, run, StopKind.PAUSE, signal),
    },
    stopping,
    close: async () => {
      stopping.abort();
      await Promise.all([sweeping, dispatching]);
      services.close();
    },
  });
}
