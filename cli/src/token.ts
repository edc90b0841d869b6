/** The shared token of a server that wants one. */
import { readFileSync } from "node:fs";
import { exitCodes, Stop } from "./exit.js";

/** The header that shows TUTELAGE_TOKEN, or what is in the file that TUTELAGE_TOKEN_FILE names; none without them. */
export function tokenHeaders(environment: NodeJS.ProcessEnv = process.env): Record<string, string> {
  const token = environment.TUTELAGE_TOKEN || contentOf(environment.TUTELAGE_TOKEN_FILE);
  return token ? { authorization: `Bearer ${token}` } : {};
}

function contentOf(path: string | undefined): string | undefined {
  if (!path) return undefined;
  try {
    return readFileSync(path, "utf8").trim();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new Stop(`TUTELAGE_TOKEN_FILE: ${path} cannot be read (${code}).`, exitCodes.noInput);
  }
}
