/** Deletes on the server, and says what went. */
import type { Api } from "./api.js";
import { bytes, table } from "./show.js";

/** What the server answers. */
export interface Removal {
  removed: Record<string, number>;
  artifact_bytes: number;
}

export async function remove(api: Api, path: string): Promise<Removal> {
  return await api.json<Removal>("DELETE", path);
}

/** A line a kind, and the bytes. */
export function removalText({ removed, artifact_bytes }: Removal): string {
  const lines = Object.entries(removed).map(([kind, count]) => [kind.replaceAll("_", " "), String(count)]);
  return table(["removed", ""], [...lines, ["files", bytes(artifact_bytes)]]);
}
