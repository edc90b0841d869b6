/** /v1/campaigns/{id}/bundle: all that shows how a campaign came to its numbers, for somebody without this server. */
import { bundleOf } from "@tutelage/platform/bundle";
import { TutelageError } from "@tutelage/platform/errors";
import { RunStatus } from "@tutelage/proto/run/v1/run";
import { z } from "zod";
import { campaignKey, campaignRef } from "./campaigns.js";
import { evidenceParts } from "./evidence.js";
import { problems } from "./fields.js";
import type { Routes } from "./routes.js";
import { byteStream, clientGone, started } from "./streams.js";

const final: readonly (RunStatus | undefined)[] = [RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELLED];

export const campaignBundleRoutes: Routes = (app, { backends, shutdown }) => {
  app.get(
    "/campaigns/:campaign/bundle",
    {
      // To count its bytes is to write it.
      exposeHeadRoute: false,
      schema: {
        tags: ["campaigns"],
        summary: "The campaign's evidence as one tar archive, for `tutelage verify`",
        description:
          "Specification, settings, digests of code and models, seeds, every dataset version, training, prediction and teacher " +
          "call, and what was reported. Of a campaign that failed or was cancelled: what there is. The same bytes each time.",
        params: campaignRef,
        response: {
          200: {
            description: "The archive; README.md in it says what is where",
            content: {
              "application/x-tar": {
                schema: z.custom<NodeJS.ReadableStream>().meta({ type: "string", format: "binary" }),
              },
            },
          },
          ...problems,
        },
      },
    },
    async ({ params }, reply) => {
      const campaign = await backends.campaigns.getCampaign(campaignKey(params.campaign));
      if (!final.includes(campaign.run?.status)) {
        throw new TutelageError(
          "failed_precondition",
          "The campaign has not ended, and its evidence still grows; wait until it has succeeded, failed or been cancelled.",
          { reason: "campaign_not_finished" },
        );
      }
      const parts = evidenceParts(backends, campaign, clientGone(reply, shutdown));
      const { items } = await started(bundleOf(parts));
      return reply
        .type("application/x-tar")
        .header("content-disposition", `attachment; filename="campaign-${campaign.run?.id}.tar"`)
        .send(byteStream(items));
    },
  );
};
