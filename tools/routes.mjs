/** Whether every route of the OpenAPI document was called, with success, by some test (tests/support/routes.ts). */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const methods = ["get", "post", "put", "patch", "delete"];

/** Says how many routes there are and which no test has called. Gives the counts of a check. */
export function checkRoutes(folder, say = (line) => process.stdout.write(`${line}\n`)) {
  const document = join(folder, "openapi.json");
  if (!existsSync(document)) {
    say("FAILED  routes: no test has fetched the OpenAPI document");
    return { passed: 0, failed: 1 };
  }
  const records = readdirSync(folder).filter((name) => name.endsWith(".txt"));
  const called = new Set(records.flatMap((name) => readFileSync(join(folder, name), "utf8").split("\n")));
  const { paths } = JSON.parse(readFileSync(document, "utf8"));
  const routes = Object.entries(paths).flatMap(([path, item]) =>
    methods
      .filter((method) => item[method])
      .map((method) => `${method.toUpperCase()} ${path.replace(/\{(\w+)\}/g, ":$1")}`),
  );
  const untested = routes.filter((route) => !called.has(route));
  for (const route of untested) say(`no test calls ${route} with success`);
  say(`routes ${routes.length}, untested ${untested.length}`);
  return routes.length > 0 && untested.length === 0 ? { passed: 1, failed: 0 } : { passed: 0, failed: 1 };
}
