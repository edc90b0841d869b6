/** The Python student on the wire, with a two-layer model that it writes itself. */
import { execFile, spawn } from "node:child_process";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const root = fileURLToPath(new URL("../../", import.meta.url));
const python = join(root, ".venv/bin/python");
const studentFolder = join(root, "services/student");

/** Writes a Hugging Face folder of a tiny Llama; gives the reference of the model. */
export async function writeTinyModel(folder: string, contextTokens = 128): Promise<string> {
  const call = [join(studentFolder, "tests/tiny_model.py"), folder, String(contextTokens)];
  await promisify(execFile)(python, call, { cwd: studentFolder });
  return `file:${folder}`;
}

export interface RealStudent {
  address: string;
  /** SIGKILL, as the kernel does when memory runs out. */
  kill(): Promise<void>;
  /** SIGSTOP: alive for whoever looks from outside, but nothing goes on. */
  freeze(): void;
  /** SIGTERM; gives the exit code. */
  stop(): Promise<number | null>;
}

/**
 * Starts a student process on a free port, or on the given one. Its artifacts are below home.
 * @param settings more variables, e.g. STUDENT_RESUME_STEPS
 */
export async function startRealStudent(
  home: string,
  listen = "127.0.0.1:0",
  settings: NodeJS.ProcessEnv = {},
): Promise<RealStudent> {
  await mkdir(join(home, "artifacts"), { recursive: true });
  const child = spawn(python, ["-m", "tutelage_student"], {
    cwd: studentFolder,
    env: {
      ...process.env,
      TUTELAGE_HOME: home,
      STUDENT_LISTEN: listen,
      STUDENT_THREADS: "1",
      STUDENT_DEVICE: "cpu",
      OMP_WAIT_POLICY: "passive",
      ...settings,
    },
    stdio: ["ignore", "ignore", "pipe"],
  });
  const exited = new Promise<number | null>((resolve) => child.once("exit", resolve));
  const port = await new Promise<number>((resolve, reject) => {
    const log: string[] = [];
    createInterface({ input: child.stderr }).on("line", (line) => {
      log.push(line);
      if (line.includes('"listening"')) resolve(JSON.parse(line).port);
    });
    void exited.then((code) => reject(new Error(`The student ended with ${code}:\n${log.join("\n")}`)));
  });
  const end = (signal: "SIGKILL" | "SIGTERM") => {
    child.kill(signal);
    return exited;
  };
  return {
    address: `127.0.0.1:${port}`,
    kill: async () => {
      await end("SIGKILL");
    },
    freeze: () => child.kill("SIGSTOP"),
    stop: () => end("SIGTERM"),
  };
}
