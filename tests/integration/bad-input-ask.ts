/** How a mistake is made, and what is expected of the answer. */
import request from "supertest";
import { campaignBody } from "./gateway-fixture.js";

/** What is wrong, the request, and of its answer: status, reason, the field that is named if any, and the fix. */
export type Case = [what: string, ask: () => request.Test, status: number, reason: string, field: string, fix: RegExp];

export const maxImportBytes = 1_500_000;
export const nobody = "00000000-0000-4000-8000-000000000000";
export const ndjson = "application/x-ndjson";

export type Ask = ReturnType<typeof askOf>;

/** @param known what is there only once the server runs */
export function askOf(known: { url: string; campaignId: string; datasetsCursor: string }) {
  const api = () => request(known.url);
  const importInto = (dataset: string, query: string, type: string, body: string | Buffer) =>
    api().post(`/v1/datasets/${dataset}/import?${query}`).set("content-type", type).send(body);
  return {
    api,
    importInto,
    lines: (body: string | Buffer, query = "strict=true") => importInto("good", query, ndjson, body),
    table: (body: string, query = "strict=true") => importInto("good", query, "text/csv", body),
    dataset: (body: string | object) => api().post("/v1/datasets").set("content-type", "application/json").send(body),
    estimate: (change: object) =>
      api()
        .post("/v1/campaigns/estimate")
        .send({ ...campaignBody, dataset: "good", ...change }),
    get: (path: string) => api().get(path),
    campaign: (path: string) => `/v1/campaigns/${known.campaignId}${path}`,
    datasetsCursor: () => known.datasetsCursor,
    maxImportBytes,
  };
}
