/** A service as a process of its own, so that a test can end it in every way. Needs a build. */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";

export interface ServiceProcess {
  child: ChildProcess;
  /** host:port of its server. */
  address: string;
  /** Sends the signal; gives the exit code (null when the signal killed it) and how long it took. */
  end(signal: "SIGTERM" | "SIGKILL"): Promise<{ code: number | null; ms: number }>;
}

/** Starts services/<name> on a free port. Its standard error is the test's own. */
export async function startServiceProcess(
  name: "datasets" | "training" | "evaluation" | "teacher" | "campaigns" | "gateway",
  environment: NodeJS.ProcessEnv,
): Promise<ServiceProcess> {
  const child = fork(fileURLToPath(import.meta.resolve(`@tutelage/${name}/main`)), {
    env: { ...process.env, LOG_LEVEL: "fatal", [`${name.toUpperCase()}_LISTEN`]: "127.0.0.1:0", ...environment },
    execArgv: [],
  });
  const exited = once(child, "exit") as Promise<[number | null]>;
  const [message] = await Promise.race([
    once(child, "message"),
    exited.then(([code]) => Promise.reject(new Error(`The ${name} service ended with ${code} before it listened.`))),
  ]);
  return {
    child,
    address: (message as { address: string }).address,
    end: async (signal) => {
      const began = performance.now();
      child.kill(signal);
      const [code] = await exited;
      return { code, ms: performance.now() - began };
    },
  };
}
