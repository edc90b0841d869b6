/** Generated code where a contract changed, then TypeScript where a source changed. */
import { failSetup, setUp } from "./setup.mjs";

await setUp({ only: ["generated code", "typescript"] }).catch(failSetup);
