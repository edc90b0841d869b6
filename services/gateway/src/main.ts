import { readConfig } from "@tutelage/platform/config";
import { createLog } from "@tutelage/platform/log";
import { runProcess } from "@tutelage/platform/process";
import { gatewaySettings, start } from "./start.js";

const config = readConfig(gatewaySettings);
const log = createLog("gateway", config.LOG_LEVEL);
await runProcess(log, () => start(config, log));
