/** A Dockerfile as a list of stages; as much of its language as ours uses. */
import { readFile } from "node:fs/promises";

export interface Instruction {
  /** Upper case. */
  name: string;
  text: string;
}

export interface Stage {
  name: string;
  /** An image, or an earlier stage. */
  from: string;
  instructions: Instruction[];
}

export interface Copy {
  /** A stage; undefined for the build's context. */
  from: string | undefined;
  sources: string[];
  target: string;
}

export async function readDockerfile(path: string): Promise<Stage[]> {
  const text = (await readFile(path, "utf8")).replace(/\\\n/g, " ");
  const stages: Stage[] = [];
  for (const line of text.split("\n")) {
    if (line.trim() === "" || line.startsWith("#")) continue;
    const [, name = "", rest = ""] = /^(\S+)\s+(.*)$/.exec(line) ?? [];
    if (name !== name.toUpperCase()) throw new Error(`Not an instruction: ${line}`);
    if (name === "FROM") {
      const [, from = "", as = ""] = /^(\S+) AS (\S+)$/.exec(rest) ?? [];
      stages.push({ name: as, from, instructions: [] });
    } else stages.at(-1)?.instructions.push({ name, text: rest.trim() });
  }
  return stages;
}

export function copiesOf({ instructions }: Stage): Copy[] {
  return instructions
    .filter(({ name }) => name === "COPY")
    .map(({ text }) => {
      const words = text.split(/\s+/);
      const from = words.find((word) => word.startsWith("--from="))?.slice("--from=".length);
      const paths = words.filter((word) => !word.startsWith("--"));
      return { from, sources: paths.slice(0, -1), target: paths.at(-1) ?? "" };
    });
}

/** Instructions of a kind in a stage and the stages that it is built on, its own last. */
export function inherited(stages: readonly Stage[], stage: Stage, name: string): string[] {
  const parent = stages.find((one) => one.name === stage.from);
  const own = stage.instructions.filter((one) => one.name === name).map(({ text }) => text);
  return [...(parent === undefined ? [] : inherited(stages, parent, name)), ...own];
}

/** Whether .dockerignore leaves a path out: the last pattern that matches decides. */
export function isIgnored(patterns: readonly string[], path: string): boolean {
  const parts = path.split("/");
  const above = parts.map((_, index) => parts.slice(0, index + 1).join("/"));
  let ignored = false;
  for (const pattern of patterns) {
    const keeps = pattern.startsWith("!");
    const expression = new RegExp(
      `^${(keeps ? pattern.slice(1) : pattern)
        .replace(/[.+^${}()|[\]]/g, "\\$&")
        .replaceAll("**/", "\0")
        .replaceAll("*", "[^/]*")
        .replaceAll("\0", "(.*/)?")}$`,
    );
    if (above.some((one) => expression.test(one))) ignored = !keeps;
  }
  return ignored;
}
