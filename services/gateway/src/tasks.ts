/** /v1/tasks: the presets and the project's own tasks, which campaigns can name. */
import { invalidField } from "@tutelage/platform/errors";
import { z } from "zod";
import { camel, snake } from "./cases.js";
import { problems, projectId } from "./fields.js";
import type { Routes } from "./routes.js";
import { taskName, taskSchema } from "./task-schemas.js";

const tags = ["tasks"];
const taskRef = z.object({ name: z.string().describe("Name of the task") });

const storedTask = z
  .object({
    task: taskSchema.optional(),
    preset: z.boolean().describe("It comes with Tutelage and cannot be changed"),
    description: z.string().describe("What a preset is for"),
    updated_at: z.date().optional().describe("When it was last stored"),
  })
  .meta({ id: "StoredTask" });

export const taskRoutes: Routes = (app, { backends }) => {
  const { campaigns } = backends;

  app.get(
    "/tasks",
    {
      schema: {
        tags,
        summary: "The tasks that a campaign can name: presets, then the project's own",
        response: { 200: z.object({ tasks: z.array(storedTask) }), ...problems },
      },
    },
    async () => snake(await campaigns.listTasks({ projectId })),
  );

  app.get(
    "/tasks/:name",
    { schema: { tags, summary: "One task", params: taskRef, response: { 200: storedTask, ...problems } } },
    async ({ params }) => snake(await campaigns.getTask({ projectId, name: params.name })),
  );

  app.put(
    "/tasks/:name",
    {
      schema: {
        tags,
        summary: "Store a task of the project, or replace it",
        description: "Campaigns that were started with it keep the task as it was.",
        params: z.object({ name: taskName }),
        body: taskSchema,
        response: { 200: storedTask, ...problems },
      },
    },
    async ({ params, body }) => {
      if (body.name !== params.name) {
        throw invalidField("name", `is "${body.name}", but the path says "${params.name}"; give the same name.`);
      }
      return snake(await campaigns.putTask({ projectId, task: camel(body) }));
    },
  );

  app.delete(
    "/tasks/:name",
    {
      schema: {
        tags,
        summary: "Remove a task of the project",
        params: taskRef,
        response: { 204: z.undefined().describe("It is gone"), ...problems },
      },
    },
    async ({ params }, reply) => {
      await campaigns.deleteTask({ projectId, name: params.name });
      return reply.code(204).send();
    },
  );
};
