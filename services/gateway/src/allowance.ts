/** /v1/allowance: what the project may use in a month, and has used. */
import { z } from "zod";
import type { Backends } from "./backends.js";
import { problems, projectId } from "./fields.js";
import type { Routes } from "./routes.js";

const cap = z.number().min(0).optional();

const caps = z.strictObject({
  teacher_calls: cap.describe("Most teacher calls in a month; 0 for no cap"),
  teacher_tokens: cap.describe("Most tokens, sent and received; 0 for no cap"),
  cost_micro_usd: cap.describe("Most money for teachers, in micro-USD; 0 for no cap"),
  training_seconds: cap.describe("Most seconds of training; 0 for no cap"),
});

const budget = z
  .object({
    month: z.string().describe("In UTC, as 2026-11"),
    lines: z.array(
      z.object({
        name: z.string().describe("teacher_calls, teacher_tokens, cost_micro_usd or training_seconds"),
        used: z.number().describe("So far; what is under way counts for the most that it can use"),
        cap: z.number().describe("0 for none"),
      }),
    ),
  })
  .meta({ id: "MonthBudget" });

export const allowanceRoutes: Routes = (app, { backends }) => {
  app.get(
    "/allowance",
    {
      schema: {
        tags: ["usage"],
        summary: "What the project may use this month, and has used",
        response: { 200: budget, ...problems },
      },
    },
    async () => await read(backends),
  );

  app.patch(
    "/allowance",
    {
      schema: {
        tags: ["usage"],
        summary: "Change what the project may use in a month",
        description:
          "What is left out stays. A cap is a wall for all campaigns and profile tests together. Campaigns whose budget was " +
          "exhausted go on, and stop again where they still lack something.",
        body: caps,
        response: { 200: budget, ...problems },
      },
    },
    async ({ body }) => {
      const given = Object.entries(body).map(([name, value]) => ({ name, cap: value ?? 0 }));
      const ofTraining = given.filter(({ name }) => name === "training_seconds");
      const ofTeacher = given.filter(({ name }) => name !== "training_seconds");
      if (ofTeacher.length > 0) await backends.teacher.setMonthBudget({ projectId, caps: ofTeacher });
      if (ofTraining.length > 0) await backends.training.setMonthBudget({ projectId, caps: ofTraining });
      await backends.campaigns.resumeExhaustedCampaigns({ projectId });
      return await read(backends);
    },
  );
};

async function read({ teacher, training }: Backends) {
  const [ofTeacher, ofTraining] = await Promise.all([
    teacher.getMonthBudget({ projectId }),
    training.getMonthBudget({ projectId }),
  ]);
  return { month: ofTeacher.month, lines: [...ofTeacher.lines, ...ofTraining.lines] };
}
