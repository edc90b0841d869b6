/** Listings of the API, page after page. */
import type { Api } from "./api.js";
import { exitCodes, Stop } from "./exit.js";

/** The server gives no more at once. */
const mostAPage = 1_000;

/**
 * A listing's first page, its items followed by those of the next pages up to
 * the limit. Says when there are more.
 * @param path with its query, limit and cursor left out
 * @param items name of the list in a page
 */
export async function listed<Page extends { next_cursor: string }>(
  api: Api,
  path: string,
  items: keyof Page & string,
  { limit, note }: { limit: string; note: (line: string) => void },
): Promise<Page> {
  const most = Number(limit);
  if (!Number.isInteger(most) || most < 1) {
    throw new Stop(`--limit is ${limit}; it must be a whole number, 1 or more.`, exitCodes.usage);
  }
  const pageAt = (cursor: string, left: number) => {
    const query = new URLSearchParams({
      limit: String(Math.min(left, mostAPage)),
      ...(cursor === "" ? {} : { cursor }),
    });
    return api.json<Page>("GET", `${path}${path.includes("?") ? "&" : "?"}${query}`);
  };
  const first = await pageAt("", most);
  const found = first[items] as unknown[];
  let cursor = first.next_cursor;
  while (cursor !== "" && found.length < most) {
    const page = await pageAt(cursor, most - found.length);
    found.push(...(page[items] as unknown[]));
    cursor = page.next_cursor;
  }
  if (cursor !== "") note(`There are more than these ${found.length}; --limit says how many to list.`);
  return { ...first, next_cursor: cursor };
}
