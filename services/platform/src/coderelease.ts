/** Which code this installation runs, for whoever wants to know later what made a result. */
import { createHash, hash } from "node:crypto";
import { existsSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";
import type { CodeRelease } from "@tutelage/proto/campaigns/v1/campaigns";
import { productVersion } from "./migrations.js";

const installation = fileURLToPath(new URL("../../../", import.meta.url));

/** What runs, without tests, types and source maps; and what it runs on. */
const code =
  /^((proto|services\/[a-z]+)\/dist\/.+\.js|services\/student\/tutelage_student\/.+\.py|migrations\/.+\.sql|package-lock\.json)$/;

/**
 * SHA-256 over a line "<SHA-256> <path>" for each file of the code, by path in the order of its characters. A part of an
 * installation that is not there, as the student and the lockfile in a container of the services, is not in it.
 */
export async function codeRelease(root = installation): Promise<CodeRelease> {
  const paths = (
    await Promise.all(["proto/dist", "services", "migrations", "package-lock.json"].map(pathsBelow))
  ).flat();
  const digest = createHash("sha256");
  for (const path of paths.filter((one) => code.test(one)).sort()) {
    digest.update(`${hash("sha256", await readFile(join(root, path)))} ${path}\n`);
  }
  return { version: productVersion, sha256: digest.digest("hex") };

  async function pathsBelow(name: string): Promise<string[]> {
    if (!existsSync(join(root, name))) return [];
    if (name.includes(".")) return [name];
    const found = await readdir(join(root, name), { recursive: true, withFileTypes: true });
    return found
      .filter((one) => one.isFile())
      .map((one) => relative(root, join(one.parentPath, one.name)).replaceAll(sep, "/"));
  }
}
