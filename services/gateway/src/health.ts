/** /health: this process lives. /ready: everything behind it does, too. */
import { z } from "zod";
import { problems } from "./fields.js";
import { sendProblem } from "./problem.js";
import type { Routes } from "./routes.js";

const tags = ["health"];

export const healthRoutes: Routes = (app, { backends }) => {
  app.get(
    "/health",
    {
      schema: {
        tags,
        security: [],
        summary: "This process lives",
        response: { 200: z.object({ status: z.literal("ok") }), ...problems },
      },
    },
    async () => ({ status: "ok" as const }),
  );

  app.get(
    "/ready",
    {
      schema: {
        tags,
        security: [],
        summary: "Every service is ready",
        response: { 200: z.object({ status: z.literal("ready") }), ...problems },
      },
    },
    async (request, reply) => {
      const notReady = await backends.notReady();
      if (notReady.length === 0) return { status: "ready" as const };
      return sendProblem(request, reply, {
        status: 503,
        title: "Not ready",
        detail: `Not ready: ${notReady.map(({ name }) => name).join(", ")}. Wait, or look at their logs.`,
        reason: "not_ready",
        errors: notReady.map(({ name, why }) => ({ field: name, description: `${name} ${why}.` })),
      });
    },
  );
};
