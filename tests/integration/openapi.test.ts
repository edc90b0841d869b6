/** The OpenAPI document of the running gateway, by a linter's rules. */
import {
  BaseResolver,
  createConfig,
  lintDocument,
  makeDocumentFromString,
  type RawUniversalConfig,
} from "@redocly/openapi-core";
import request from "supertest";
import { afterAll, beforeAll, expect, test } from "vitest";
import { noteDocument } from "../support/routes.js";
import { type Fixture, startFixture } from "./gateway-fixture.js";

let fixture: Fixture;
let text: string;

beforeAll(async () => {
  fixture = await startFixture();
  text = (await request(fixture.url).get("/docs/json").expect(200)).text;
  noteDocument(text);
});
afterAll(() => fixture.stop());

/** All of the linter's recommended rules as errors, and those beside them that concern us. None is off. */
const rules: RawUniversalConfig = {
  extends: ["recommended-strict"],
  rules: {
    "no-invalid-media-type-examples": "error",
    "no-invalid-schema-examples": "error",
    "no-invalid-parameter-examples": "error",
    "no-http-verbs-in-paths": "error",
    "no-path-trailing-slash": "error",
    "no-duplicated-tag-names": "error",
    "path-parameters-defined": "error",
    "operation-operationId-unique": "error",
    "operation-operationId-url-safe": "error",
    "operation-4xx-problem-details-rfc7807": "error",
    "rule/operation-tagged": {
      subject: { type: "Operation", property: "tags" },
      assertions: { defined: true, minLength: 1 },
    },
  },
};

async function broken(document: string): Promise<string[]> {
  const config = await createConfig(rules);
  const found = await lintDocument({
    document: makeDocumentFromString(document, "openapi.json"),
    externalRefResolver: new BaseResolver(),
    config,
  });
  return found.map(({ ruleId, message, location }) => `${ruleId} at ${location[0]?.pointer}: ${message}`);
}

test("the document breaks no rule", async () => {
  expect(await broken(text)).toEqual([]);
});

test("a mistake in it is found", async () => {
  const document = JSON.parse(text);
  const paths = document.paths;
  delete paths["/v1/datasets"].get.summary;
  delete paths["/v1/datasets"].post.tags;
  delete paths["/v1/datasets/{dataset}"].get.parameters;
  delete paths["/v1/campaigns"].get.responses["4XX"];
  paths["/v1/campaigns"].post.operationId = paths["/v1/datasets"].get.operationId;
  delete document.components.schemas.Row;
  const found = (await broken(JSON.stringify(document))).map((line) => line.split(" ")[0]);
  expect(new Set(found)).toEqual(
    new Set([
      "operation-summary",
      "rule/operation-tagged",
      "path-parameters-defined",
      "operation-4xx-response",
      "operation-operationId-unique",
      "no-unresolved-refs",
    ]),
  );
});
