/** Where a campaign stands in a listing. Pure. */
import { isUuid } from "@tutelage/platform/runs";

/** The time is Postgres' own text, to the microsecond. */
export interface CampaignPlace {
  createdAt: string;
  id: string;
}

/** Whether it is one: a cursor may be made up, and Postgres refuses a time that there is not. */
export function isCampaignPlace(place: unknown): place is CampaignPlace {
  const { createdAt, id } = (place ?? {}) as Partial<CampaignPlace>;
  return typeof createdAt === "string" && isTime(createdAt) && typeof id === "string" && isUuid(id);
}

/** A time as Postgres writes it, on a day that there is: Date takes the 31st of February for one in March. */
function isTime(text: string): boolean {
  const day = /^(\d{4}-\d\d-\d\d) \d\d:\d\d:\d\d(\.\d+)?[+-]\d\d(:\d\d)?$/.exec(text)?.[1];
  if (day === undefined) return false;
  const time = new Date(`${day}T00:00:00Z`);
  return !Number.isNaN(Date.parse(text)) && !Number.isNaN(time.getTime()) && time.toISOString().startsWith(day);
}
