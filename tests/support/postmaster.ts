/** The process that holds a cluster together. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";

/** Its id, as it notes it where its data lie. */
export async function postmasterOf({ dataDirectory }: { dataDirectory: string }): Promise<number> {
  return Number((await readFile(join(dataDirectory, "postmaster.pid"), "utf8")).split("\n")[0]);
}
