/** The parts of a campaign.yaml that are the API's own, as JSON Schema: what a client sends of them. Pure. */
import { z } from "zod";
import { settingsSchema } from "./settings-schemas.js";
import { taskSchema } from "./task-schemas.js";

/** By their names in the OpenAPI document. The command line has a copy: tools/apischema.mjs writes it, a test compares. */
export function campaignFileDefinitions(): Record<string, object> {
  const whole = z.object({ settings: settingsSchema, task: taskSchema });
  const { $defs = {} } = z.toJSONSchema(whole, {
    io: "input",
    target: "draft-2020-12",
    // That a whole number is one that JSON carries exactly is no bound of ours.
    override: ({ jsonSchema }) => {
      if (jsonSchema.maximum === Number.MAX_SAFE_INTEGER) delete jsonSchema.maximum;
      if (jsonSchema.minimum === Number.MIN_SAFE_INTEGER) delete jsonSchema.minimum;
    },
  });
  return $defs as Record<string, object>;
}
