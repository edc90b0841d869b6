/** /v1/campaigns/{id}/dataset: the rows that the returned student was trained on. */
import { TutelageError } from "@tutelage/platform/errors";
import { z } from "zod";
import { campaignKey, campaignRef } from "./campaigns.js";
import { snake } from "./cases.js";
import { versionSchema } from "./dataset-schemas.js";
import { problems } from "./fields.js";
import type { Routes } from "./routes.js";

const campaignDataset = z
  .object({
    version: versionSchema.describe("What the returned student was trained on"),
    chosen_iteration: z.number().int().describe("-1 for the plain student, which saw the seed rows alone"),
    seed_version_id: z.string().describe("What the campaign began with"),
    links: z.object({
      rows: z.string(),
      synthetic_rows: z.string(),
      export: z.string(),
      diff: z.string().describe("Against what the campaign began with"),
    }),
  })
  .meta({ id: "CampaignDataset" });

export const campaignDatasetRoutes: Routes = (app, { backends }) => {
  app.get(
    "/campaigns/:campaign/dataset",
    {
      schema: {
        tags: ["campaigns"],
        summary: "The dataset version that the returned student was trained on",
        params: campaignRef,
        response: { 200: campaignDataset, ...problems },
      },
    },
    async ({ params }) => {
      const key = campaignKey(params.campaign);
      const { outcome, request } = await backends.campaigns.getCampaign(key);
      if (outcome === undefined) {
        throw new TutelageError(
          "failed_precondition",
          "The campaign has no dataset to return before it has succeeded.",
          {
            reason: "campaign_not_finished",
          },
        );
      }
      const version = await backends.datasets.getVersion({ projectId: key.projectId, id: outcome.datasetVersionId });
      const seedVersionId = request?.datasetVersionId ?? "";
      const path = `/v1/versions/${version.id}`;
      return {
        version: snake(version),
        chosen_iteration: outcome.chosenIteration,
        seed_version_id: seedVersionId,
        links: {
          rows: `${path}/rows`,
          synthetic_rows: `${path}/rows?origin=synthetic`,
          export: `${path}/export`,
          diff: `${path}/diff?against=${seedVersionId}`,
        },
      };
    },
  );
};
