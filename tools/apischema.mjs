/** Writes the command line's copy of the API's parts of a campaign.yaml, after a build: node tools/apischema.mjs */
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { campaignFileDefinitions } from "../services/gateway/dist/campaignfile.js";
import { root } from "./children.mjs";

const file = join(root, "cli/src/apischema.ts");
writeFileSync(
  file,
  `/** The API's parts of a campaign.yaml as JSON Schema, written by tools/apischema.mjs: change the gateway's schemas. */
import type { SchemaNode } from "./knownnames.js";

export const apiSchema: Record<string, SchemaNode> = ${JSON.stringify(campaignFileDefinitions())};
`,
);
execFileSync(join(root, "node_modules/.bin/biome"), ["format", "--write", file], { stdio: "inherit" });
