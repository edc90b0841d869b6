import { readConfig } from "@tutelage/platform/config";
import { createLog } from "@tutelage/platform/log";
import { runProcess } from "@tutelage/platform/process";
import { settings, start } from "./start.js";

const config = readConfig(settings);
await runProcess(createLog("teacher", config.LOG_LEVEL), () => start(config));
