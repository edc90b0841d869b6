/** /v1/profiles: the students and teachers that the operator offers, and whether a teacher answers. */
import { BreakerState } from "@tutelage/proto/teacher/v1/teacher";
import { z } from "zod";
import { snake } from "./cases.js";
import { enumName, problems, projectId } from "./fields.js";
import type { Routes } from "./routes.js";
import { studentProfiles, teacherProfile, teacherProfiles } from "./task-schemas.js";

const tags = ["profiles"];

const teacherWeather = z
  .object({
    profile: teacherProfile.optional(),
    breaker: z
      .object({
        state: enumName(BreakerState).describe(
          "closed: calls are made; open: the provider is away and runs wait; half_open: one call tries whether it is back",
        ),
        code: z.string().describe("Of the failure that keeps it open; empty while closed"),
        reason: z.string(),
        opened_at: z.date().optional(),
        probe_at: z.date().optional().describe("When the provider is tried next, if there is work for it"),
        failed_probes: z.number().int(),
      })
      .optional(),
    max_concurrency: z.number().int().describe("Most calls under way at once, of one replica of the teacher service"),
    senders: z
      .array(
        z.object({
          replica: z.string(),
          concurrency: z.number().int().describe("Calls that it may have under way now"),
          under_way: z.number().int(),
          seen_at: z.date().optional(),
        }),
      )
      .describe("Replicas that called it within the last minute"),
  })
  .meta({ id: "TeacherWeather" });

export const profileRoutes: Routes = (app, { backends }) => {
  app.get(
    "/profiles/students",
    { schema: { tags, summary: "The students on offer", response: { 200: studentProfiles, ...problems } } },
    async () => snake(await backends.training.listStudentProfiles({ projectId })),
  );

  app.get(
    "/profiles/teachers",
    { schema: { tags, summary: "The teachers on offer", response: { 200: teacherProfiles, ...problems } } },
    async () => snake(await backends.teacher.listTeacherProfiles({ projectId })),
  );

  app.get(
    "/profiles/teachers/:name",
    {
      schema: {
        tags,
        summary: "A teacher, whether its provider answers, and how many calls are made at once",
        params: z.object({ name: z.string() }),
        response: { 200: teacherWeather, ...problems },
      },
    },
    async ({ params }) => snake(await backends.teacher.getTeacherProfile({ projectId, name: params.name })),
  );
};
