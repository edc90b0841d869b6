/** Starts a quick campaign of the campaign fixture over HTTP, and returns at once. */
import request from "supertest";
import { type CampaignFixture, profiles, quick, rows } from "../integration/campaign-fixture.js";
import { task } from "./tinytask.js";

/** Gives its id. */
export async function startCampaign({ stack }: CampaignFixture): Promise<string> {
  const api = request(stack.url);
  const dataset = (await api.post("/v1/datasets").send({ name: "storm" }).expect(201)).body.id;
  const lines = rows.map((row) => JSON.stringify(row)).join("\n");
  const path = `/v1/datasets/${dataset}/import?split_column=split&strict=true`;
  await api.post(path).set("content-type", "application/x-ndjson").send(lines).expect(201);
  const body = {
    name: "storm",
    dataset,
    task,
    settings: quick,
    student_profile: profiles.studentProfile,
    teacher_profile: profiles.teacherProfile,
  };
  return (await api.post("/v1/campaigns").send(body).expect(201)).body.run.id;
}
