/** Runs a benchmark of services/student/benchmarks in its Python environment and ends as it ends. */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { root } from "../../tools/children.mjs";
import { venvPython } from "../../tools/setup.mjs";

export function student(name) {
  const { status } = spawnSync(venvPython, ["-m", "benchmarks", name, ...process.argv.slice(2)], {
    cwd: join(root, "services/student"),
    stdio: ["ignore", "inherit", "inherit"],
  });
  process.exitCode = status ?? 1;
}
