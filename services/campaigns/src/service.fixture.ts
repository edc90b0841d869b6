/** The campaigns service on a free port with a database of its own and no worker: campaigns stay as a test puts them. */
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FileArtifactStore } from "@tutelage/platform/artifacts";
import { openDatabase } from "@tutelage/platform/database";
import { connect, serve, served } from "@tutelage/platform/grpc";
import { openLease } from "@tutelage/platform/lease";
import { createLog } from "@tutelage/platform/log";
import { defaultLeaseTiming, Runs } from "@tutelage/platform/runs";
import { CampaignsServiceDefinition, Settings, StartCampaignRequest } from "@tutelage/proto/campaigns/v1/campaigns";
import { WebhooksServiceDefinition } from "@tutelage/proto/campaigns/v1/webhooks";
import { testDatabaseUrl } from "../../../tests/support/database.js";
import { Campaign, type CampaignState, type ResolvedRequest } from "./campaign.js";
import { connectServices, type Services } from "./clients.js";
import { DeletionStore } from "./deletionstore.js";
import { DeliveryStore } from "./deliverystore.js";
import { type DispatchTiming, defaultDispatchTiming, dispatch } from "./dispatcher.js";
import { recordChanges } from "./events.js";
import { NamedTasks } from "./namedtasks.js";
import { ReviewStore } from "./reviewstore.js";
import { campaignsService } from "./service.js";
import { defaultSettings } from "./settings.js";
import { CampaignStore } from "./store.js";
import { TaskStore } from "./taskstore.js";
import { webhooksService } from "./webhookservice.js";
import { WebhookStore } from "./webhookstore.js";

export const projectId = "default";
/** Nobody listens there. */
const nowhere = "127.0.0.1:9";

export async function startFixture() {
  const log = createLog("test", "fatal");
  const database = await openDatabase({ url: await testDatabaseUrl(), schema: "campaigns", log, hasRuns: true });
  const store = new CampaignStore(database);
  const runs = new Runs<ResolvedRequest, CampaignState>(database, log, defaultLeaseTiming, recordChanges(store));
  const services = connectServices({ datasets: nowhere, training: nowhere, evaluation: nowhere, teacher: nowhere });
  const tasks = new NamedTasks(new TaskStore(database));
  const deliveries = new DeliveryStore(database);
  const deletions = new DeletionStore(database);
  const server = await serve({
    listen: "127.0.0.1:0",
    services: [
      served(
        CampaignsServiceDefinition,
        campaignsService({
          runs,
          store,
          tasks,
          services,
          deletions,
          reviews: new ReviewStore(database, store),
          artifacts: new FileArtifactStore(join(tmpdir(), "nothing-here")),
          stopping: new AbortController().signal,
        }),
      ),
      served(WebhooksServiceDefinition, webhooksService({ webhooks: new WebhookStore(database), deliveries })),
    ],
    log,
  });
  const client = connect(CampaignsServiceDefinition, server.address);
  const webhooks = connect(WebhooksServiceDefinition, server.address);
  const listening = runs.signals.listen();
  return {
    client,
    webhooks,
    database,
    store,
    deliveries,
    deletions,
    /** Sends deliveries, as one replica does, until it is stopped. */
    dispatch: (timing: Partial<DispatchTiming> = {}) => {
      const stopping = new AbortController();
      const dispatching = dispatch({
        deliveries,
        signals: runs.signals,
        log,
        timing: { ...defaultDispatchTiming, pollMs: 50, ...timing },
        signal: stopping.signal,
      });
      return async () => {
        stopping.abort();
        await dispatching;
      };
    },
    /** Stores a campaign as StartCampaign does once everything is resolved; gives its id. */
    put: async (request: Partial<StartCampaignRequest> = {}, state: Partial<CampaignState> = {}) => {
      const settings = Settings.fromPartial({ ...defaultSettings, ...request.settings });
      const resolved = StartCampaignRequest.fromPartial({
        projectId,
        task: {},
        ...request,
        settings,
      }) as ResolvedRequest;
      return (await runs.start(resolved.projectId, "", resolved, { state })).id;
    },
    /** Claims a campaign as a worker does, and gives what its loop works with; the holder before it has lost it. */
    hold: async (id: string, others: Partial<Services> = {}) => {
      await database.pool.query("update runs set status = 'RUNNING', fence = fence + 1 where id = $1", [id]);
      const lease = openLease(database, await runs.get(projectId, id), new AbortController().signal);
      return new Campaign(lease, { ...services, ...others }, new FileArtifactStore("/nowhere"), store);
    },
    end: async (id: string, status: string) => {
      await database.pool.query("update runs set status = $2, finished_at = now() where id = $1", [id, status]);
    },
    stop: async () => {
      client.close();
      webhooks.close();
      services.close();
      await server.stop(0);
      await runs.signals.close();
      await listening;
      await database.close();
    },
  };
}

export type Fixture = Awaited<ReturnType<typeof startFixture>>;
