/** Starting a campaign through the REST API, whatever dies meanwhile: every request may be repeated. */
import { setTimeout as sleep } from "node:timers/promises";
import { task } from "../support/tinytask.js";
import type { PlannedCampaign } from "./workload.js";

export interface CampaignOrder {
  campaign: PlannedCampaign;
  maxCostMicroUsd: number;
}

const answerMs = 60_000;

/** Gives the campaign's id. */
export async function startCampaign(url: string, { campaign, maxCostMicroUsd }: CampaignOrder): Promise<string> {
  const { tag, rows, settings } = campaign;
  const dataset = await post(`${url}/v1/datasets`, tag, JSON.stringify({ name: tag }), "application/json", [409]);
  const id = dataset.status === 409 ? tag : ((await dataset.json()) as { id: string }).id;
  const lines = rows.map((row) => `${JSON.stringify(row)}\n`).join("");
  const path = `/v1/datasets/${id}/import?split_column=split&strict=true`;
  await post(`${url}${path}`, tag, lines, "application/x-ndjson");
  const body = {
    name: tag,
    dataset: id,
    student_profile: "tiny",
    teacher_profile: "scripted",
    task,
    settings: { ...settings, max_cost_micro_usd: maxCostMicroUsd },
  };
  const started = await post(`${url}/v1/campaigns`, tag, JSON.stringify(body), "application/json");
  return ((await started.json()) as { run: { id: string } }).run.id;
}

/** Posts until it is answered; a refusal that is not expected is thrown. */
async function post(
  url: string,
  key: string,
  body: string,
  contentType: string,
  expected: readonly number[] = [],
): Promise<Response> {
  for (;;) {
    const response = await fetch(url, {
      method: "POST",
      headers: { "content-type": contentType, "idempotency-key": key },
      body,
      signal: AbortSignal.timeout(answerMs),
    }).catch(() => undefined);
    if (response?.ok || (response !== undefined && expected.includes(response.status))) return response;
    // 502 to 504: somebody is away. Anything else is an answer.
    if (response !== undefined && ![502, 503, 504].includes(response.status))
      throw new Error(`${url} was answered with ${response.status}: ${await response.text()}`);
    await sleep(500);
  }
}
