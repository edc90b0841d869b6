/** /v1/profiles: the students and teachers that the operator offers. */
import { snake } from "./cases.js";
import { problems, projectId } from "./fields.js";
import type { Routes } from "./routes.js";
import { studentProfiles, teacherProfiles } from "./task-schemas.js";

const tags = ["profiles"];

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
};
