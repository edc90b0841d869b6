/** Which campaigns a listing shows. Pure. */
import { invalidField } from "@tutelage/platform/errors";
import { isUuid, type RunStatus } from "@tutelage/platform/runs";
import type { ListCampaignsRequest } from "@tutelage/proto/campaigns/v1/campaigns";
import { RunStatus as RunStatusMessage } from "@tutelage/proto/run/v1/run";

/** What is empty or undefined does not choose. */
export interface CampaignFilter {
  statuses: RunStatus[];
  nameContains: string;
  datasetId: string;
  createdSince: Date | undefined;
  createdBefore: Date | undefined;
  tag: string;
}

/** Throws invalid_argument for a filter that nothing can meet. */
export function checkedFilter(given: Omit<ListCampaignsRequest, "projectId" | "pageSize" | "cursor">): CampaignFilter {
  const { createdSince, createdBefore } = given;
  const datasetId = given.datasetId.toLowerCase();
  if (datasetId !== "" && !isUuid(datasetId)) throw invalidField("dataset_id", "must be a UUID.");
  if (createdSince !== undefined && createdBefore !== undefined && createdSince >= createdBefore) {
    throw invalidField("created_before", "must be later than created_since.");
  }
  for (const [field, text] of [
    ["name_contains", given.nameContains],
    ["tag", given.tag],
  ] as const) {
    if (text.includes("\u0000")) throw invalidField(field, "holds the character U+0000; remove it.");
  }
  return { ...given, datasetId, statuses: given.statuses.map(statusName) };
}

function statusName(status: RunStatusMessage): RunStatus {
  const [name] = Object.entries(RunStatusMessage).find(([, value]) => value === status) ?? [];
  if (name === undefined || name === "UNSPECIFIED") {
    throw invalidField("statuses", "must be of QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED.");
  }
  return name as RunStatus;
}
