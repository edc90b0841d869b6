import request from "supertest";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Fixture, startFixture } from "./gateway-fixture.js";

let fixture: Fixture;

beforeAll(async () => {
  fixture = await startFixture();
});
afterAll(() => fixture.stop());

test("the operator's students and teachers are listed with what a client chooses by", async () => {
  const students = (await request(fixture.url).get("/v1/profiles/students").expect(200)).body.profiles;
  expect(students).toMatchObject([
    { name: "smollm2-135m", model: "package:module/model.gguf", recipe: { method: "lora", learning_rate: 0.001 } },
  ]);
  const teachers = (await request(fixture.url).get("/v1/profiles/teachers").expect(200)).body.profiles;
  expect(teachers).toMatchObject([
    { name: "gemma3-270m", provider: "embedded", scores_labels: true, prompt_micro_usd_per_million_tokens: 0 },
  ]);
});
