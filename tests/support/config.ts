/** A service's settings as a test gives them. */
import { parseConfig } from "@tutelage/platform/config";

/** Throws naming each variable that is wrong. */
export function config<Shape extends Parameters<typeof parseConfig>[0]>(shape: Shape, environment: NodeJS.ProcessEnv) {
  const parsed = parseConfig(shape, environment);
  if ("problems" in parsed) throw new Error(parsed.problems.join("\n"));
  return parsed.config;
}
