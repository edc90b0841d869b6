/** /v1/maintenance: what an operator does to a server that runs. */
import type { GarbageCollection } from "@tutelage/proto/run/v1/garbage";
import { z } from "zod";
import { snake } from "./cases.js";
import { problems, projectId } from "./fields.js";
import type { Routes } from "./routes.js";

/** Millions of files on a slow disk take minutes. */
const collectDeadlineMs = 900_000;
const mostNamed = 1_000;
const secondsPerHour = 3_600;

const collection = z
  .object({
    dry_run: z.boolean().describe("Nothing was removed"),
    count: z.number().int().describe("Files and folders that nothing refers to"),
    bytes: z.number().int().describe("Their size"),
    garbage: z
      .array(
        z.object({
          path: z.string().describe("Below the artifact store's folder of the project"),
          bytes: z.number().int(),
          last_written_at: z.date().optional(),
          reason: z
            .string()
            .describe(
              "unfinished_write, version_gone, run_gone, attempt_lost, checkpoint_removed or export_gone: why nothing refers to it",
            ),
        }),
      )
      .describe(`The first ${mostNamed} of them`),
  })
  .meta({ id: "GarbageCollection" });

export const maintenanceRoutes: Routes = (app, { backends }) => {
  app.post(
    "/maintenance/gc",
    {
      schema: {
        tags: ["maintenance"],
        summary: "Remove files that nothing refers to",
        description:
          "Versions' files that no version has, attempts' folders that no run names, writes that died. Of a run that is " +
          "not over nothing is touched, and nothing that was written within min_age_hours. With dry_run it only tells.",
        body: z.strictObject({
          dry_run: z.boolean().default(false).describe("Only tell what would be removed"),
          min_age_hours: z
            .number()
            .min(1)
            .max(87_600)
            .default(24)
            .describe("Only what was last written so long ago; what somebody is about to commit is younger"),
        }),
        response: { 200: collection, ...problems },
      },
    },
    async ({ body }) => {
      const asked = {
        projectId,
        dryRun: body.dry_run,
        minAgeSeconds: Math.round(body.min_age_hours * secondsPerHour),
      };
      const options = { deadline: collectDeadlineMs };
      const found: GarbageCollection[] = [];
      // One after the other: they may look at one disk.
      for (const service of [backends.campaigns, backends.training, backends.datasets]) {
        found.push(await service.collectGarbage(asked, options));
      }
      return {
        dry_run: body.dry_run,
        count: found.reduce((sum, { count }) => sum + count, 0),
        bytes: found.reduce((sum, { bytes }) => sum + bytes, 0),
        garbage: found
          .flatMap(({ garbage }) => garbage)
          .slice(0, mostNamed)
          .map(({ uri, ...rest }) => snake({ path: pathOf(uri), ...rest })),
      };
    },
  );
};

/** Where it lies in the project: the operator's folders are nobody else's business. */
function pathOf(uri: string): string {
  const [, below] = new RegExp(`/${projectId}/((?:versions|runs)/.*)$`).exec(uri) ?? [];
  return decodeURIComponent(below ?? "");
}
