/** A two-layer model for llama.cpp. What it says means nothing; the same prompt gives the same text. */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const root = fileURLToPath(new URL("../../", import.meta.url));

/** Writes the file; gives its path. */
export async function writeTinyGguf(folder: string, contextTokens = 512): Promise<string> {
  const path = join(folder, "tiny.gguf");
  const call = [join(root, "services/student/tests/tiny_gguf.py"), path, String(contextTokens)];
  await promisify(execFile)(join(root, ".venv/bin/python"), call, { cwd: join(root, "services/student") });
  return path;
}
