/** The real campaigns service and the gateway before it, on the other services of a test. */
import { settings as campaignsSettings, start as startCampaigns } from "@tutelage/campaigns/start";
import { gatewaySettings, start as startGateway } from "@tutelage/gateway/start";
import type { RunningService } from "@tutelage/platform/process";
import { config } from "./config.js";
import { recordingLog } from "./routes.js";

/** @param environment of both: the home, the campaigns' database, the others' addresses */
export async function startCampaignsAndGateway(
  environment: NodeJS.ProcessEnv,
): Promise<{ campaigns: RunningService; gateway: RunningService }> {
  const listen = "127.0.0.1:0";
  const campaigns = await startCampaigns(config(campaignsSettings, { ...environment, CAMPAIGNS_LISTEN: listen }));
  const asked = { ...environment, CAMPAIGNS_ADDRESS: campaigns.address, GATEWAY_LISTEN: listen };
  return { campaigns, gateway: await startGateway(config(gatewaySettings, asked), recordingLog()) };
}
