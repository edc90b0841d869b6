#!/usr/bin/env node
/** The installed command. npm links it before anything is compiled, so it lies beside the compiled client, not in it. */
import { existsSync } from "node:fs";

const compiled = new URL("../dist/main.js", import.meta.url);
if (!existsSync(compiled)) {
  process.stderr.write('Tutelage is not set up yet. Run "npm run setup" in its folder.\n');
  process.exit(69);
}
await import(compiled);
