/** DELETE of datasets and campaigns: what goes with them, and what refuses it. */
import { isUuid } from "@tutelage/platform/runs";
import type { Removal } from "@tutelage/proto/run/v1/removal";
import { z } from "zod";
import { campaignKey, campaignRef } from "./campaigns.js";
import { problems, projectId } from "./fields.js";
import type { Routes } from "./routes.js";

/** Millions of rows and gigabytes of files take minutes. */
const deletionDeadlineMs = 900_000;

const removal = z
  .object({
    removed: z
      .record(z.string(), z.number().int())
      .describe("How many things of each kind this request removed, e.g. datasets, rows, training_runs, predictions"),
    artifact_bytes: z.number().int().describe("Bytes of the files that it removed"),
  })
  .meta({ id: "Removal" });

export const deletionRoutes: Routes = (app, { backends }) => {
  app.delete(
    "/datasets/:dataset",
    {
      schema: {
        tags: ["datasets"],
        summary: "Delete a dataset with its versions, rows and files",
        description:
          "409 dataset_in_use names the campaigns and datasets that need one of its versions. A deletion that was " +
          "interrupted may be asked for again; 404 once it is gone.",
        params: z.object({ dataset: z.string().describe("Id or name") }),
        response: { 200: removal, ...problems },
      },
    },
    async ({ params: { dataset } }) => {
      // By itself, not through a look: a dataset whose deletion was interrupted is found by nothing else.
      const which = isUuid(dataset) ? { id: dataset, name: "" } : { id: "", name: dataset };
      return body(
        await backends.datasets.deleteDataset(
          { projectId, ...which, checkOnly: false },
          { deadline: deletionDeadlineMs },
        ),
      );
    },
  );

  app.delete(
    "/campaigns/:campaign",
    {
      schema: {
        tags: ["campaigns"],
        summary: "Delete a campaign with all that it made",
        description:
          "Its iterations, candidates and events, its dataset, its training, evaluation and generation runs, and their " +
          "files. What teacher calls cost stays on the account as bare numbers. 409 campaign_running until it has ended, " +
          "409 dataset_in_use when something else needs its dataset. A deletion that was interrupted may be asked for " +
          "again; 404 once it is gone.",
        params: campaignRef,
        response: { 200: removal, ...problems },
      },
    },
    async ({ params }) =>
      body(await backends.campaigns.deleteCampaign(campaignKey(params.campaign), { deadline: deletionDeadlineMs })),
  );
};

function body({ counts, artifactBytes }: Removal): z.output<typeof removal> {
  return { removed: counts, artifact_bytes: artifactBytes };
}
