/**
 * Which routes of the gateway tests have called: tools/routes.mjs compares
 * them with the OpenAPI document when all tests have run. Noted from the
 * gateway's own log, where TUTELAGE_ROUTE_RECORDS names a folder.
 */
import { appendFileSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { pino } from "pino";

const folder = process.env.TUTELAGE_ROUTE_RECORDS;

/** A gateway's log that is not shown: what it says of requests is noted. */
export function recordingLog() {
  return pino({ level: "info" }, { write: note });
}

/** Notes what a gateway of another process has logged. */
export async function noteRoutes(logFile: string): Promise<void> {
  for (const line of (await readFile(logFile, "utf8")).split("\n")) note(line);
}

/** Keeps the document that the routes are compared with. */
export function noteDocument(openApi: string): void {
  if (folder !== undefined) writeFileSync(join(folder, "openapi.json"), openApi);
}

/** A route that only ever refused is not tested. */
function note(line: string): void {
  if (folder === undefined || !line.includes('"msg":"request"')) return;
  const { method, route, status } = JSON.parse(line) as { method: string; route: string; status: number };
  if (status < 400) appendFileSync(join(folder, `${process.pid}.txt`), `${method} ${route}\n`);
}
