/** A server as a document starts it: `npm start`, with what the reader has set before it. */
import { spawn } from "node:child_process";
import { once } from "node:events";

export interface DocServer {
  url: string;
  output(): string;
  stop(): Promise<void>;
}

/** Whether a command starts a server and goes on until Ctrl-C. */
export const startsServer = (command: string) => /^(\w+=\S+\s+)*(npm start|npx tutelage up)\b[^|&;]*$/.test(command);

/** Runs it until it says that it is ready. Throws with what it said when it ends before. */
export async function startServer(command: string, cwd: string, environment: NodeJS.ProcessEnv): Promise<DocServer> {
  // A group of its own: Ctrl-C reaches the whole group, as in a terminal.
  const child = spawn("bash", ["-c", command], { cwd, env: environment, detached: true });
  let said = "";
  const exited = once(child, "exit");
  const url = await new Promise<string>((ready, fail) => {
    for (const stream of [child.stdout, child.stderr]) {
      stream.on("data", (chunk: Buffer) => {
        said += chunk.toString();
        if (said.includes("Ctrl-C stops it.")) ready(/API\s+(http:\S+)\/v1/.exec(said)?.[1] ?? "");
      });
    }
    void exited.then(() => fail(new Error(`The server ended:\n${said}`)));
  });
  return {
    url,
    output: () => said,
    stop: async () => {
      if (child.exitCode === null && child.pid !== undefined) process.kill(-child.pid, "SIGINT");
      await exited;
    },
  };
}
