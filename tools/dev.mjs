/**
 * npm run dev: everything runs; a changed source is compiled and the service
 * it belongs to is started anew. A change of the contracts or of the platform
 * restarts all of them.
 */
import { spawn } from "node:child_process";
import { existsSync, readdirSync, watch } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { root } from "./children.mjs";
import { failSetup, setUp } from "./setup.mjs";

/** Editors and the compiler write several files at once. */
const quietMs = 300;

await setUp().catch(failSetup);
for (const signal of ["SIGINT", "SIGTERM"]) process.removeAllListeners(signal);
const load = (path) => import(pathToFileURL(join(root, path)).href);
const { startStack } = await load("services/standalone/dist/stack.js");
const { serviceSettings, readConfig } = await load("services/platform/dist/config.js");
const { TUTELAGE_HOME: home } = readConfig({ TUTELAGE_HOME: serviceSettings.TUTELAGE_HOME });

const say = (line) => process.stderr.write(`dev: ${line}\n`);
const stack = await startStack({
  home,
  httpPort: Number(process.env.TUTELAGE_PORT || 8080),
  onEvent: (line, { type }) => type === "started" || type === "stopped" || say(line),
}).catch((error) => {
  say(error.message);
  process.exit(1);
});

const tsc = join(root, "node_modules/.bin/tsc");
const compiler = spawn(tsc, ["-b", "--watch", "--preserveWatchOutput"], {
  cwd: root,
  stdio: ["ignore", "inherit", "inherit"],
  detached: true,
});
compiler.on("error", (error) => say(`the compiler does not run: ${error.message}`));

let stopping = false;
for (const signal of ["SIGINT", "SIGTERM"]) {
  process.on(signal, async () => {
    if (stopping) return;
    stopping = true;
    say("stopping …");
    compiler.kill("SIGTERM");
    await stack.stop();
    process.exit(0);
  });
}

const services = ["datasets", "training", "evaluation", "teacher", "campaigns", "gateway"];
const changed = new Set();
let timer;
let restarting = Promise.resolve();

/** Restarts what changed once nothing has changed for a moment. */
function note(name) {
  changed.add(name);
  clearTimeout(timer);
  timer = setTimeout(() => {
    const names = [...changed];
    changed.clear();
    restarting = restarting.then(() => apply(names)).catch((error) => say(error.message));
  }, quietMs);
}

async function apply(names) {
  if (stopping) return;
  if (names.includes("contracts")) {
    say("the contracts changed");
    await setUp({ only: ["generated code"], say });
    names.push("student");
  }
  if (names.includes("standalone")) say("standalone itself changed: start npm run dev anew to run it");
  const all = names.includes("platform");
  const restarts = [...services, "student"].filter((name) => names.includes(name) || (all && name !== "student"));
  if (restarts.length > 0) say(`restarting ${restarts.join(", ")}`);
  await Promise.all(restarts.map((name) => stack.restart(name)));
}

function watchFolder(folder, ending, name) {
  if (!existsSync(join(root, folder))) return;
  watch(join(root, folder), { recursive: true }, (_event, file) => {
    if (file?.endsWith(ending) && !file.includes("generated")) note(name);
  });
}

for (const name of readdirSync(join(root, "services"))) watchFolder(`services/${name}/dist`, ".js", name);
for (const name of services) watchFolder(`services/${name}`, "profiles.yaml", name);
watchFolder("proto/dist", ".js", "platform");
watchFolder("proto/tutelage", ".proto", "contracts");
watchFolder("services/student/tutelage_student", ".py", "student");
say(`ready at ${stack.url}, documentation at ${stack.url}/docs; a saved file restarts its service`);
