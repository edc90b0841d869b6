/** /v1/usage: what the project's teacher calls cost in all. */
import { z } from "zod";
import { snake } from "./cases.js";
import { problems, projectId } from "./fields.js";
import type { Routes } from "./routes.js";

const usage = z
  .object({
    calls: z.number().int().describe("Failed ones too"),
    reused_calls: z.number().int().describe("Replies that were stored and not paid again"),
    prompt_tokens: z.number().int(),
    completion_tokens: z.number().int(),
    cost_micro_usd: z.number().int(),
    teacher_seconds: z.number().describe("Summed over calls, overlapping or not"),
    saved_micro_usd: z.number().int().describe("What the replies had cost that were used again"),
  })
  .meta({ id: "ProjectUsage" });

export const usageRoutes: Routes = (app, { backends }) => {
  app.get(
    "/usage",
    {
      schema: {
        tags: ["usage"],
        summary: "What all teacher calls of the project used, those of deleted campaigns and of profile tests too",
        response: { 200: usage, ...problems },
      },
    },
    async () => snake(await backends.teacher.getProjectUsage({ projectId })),
  );
};
