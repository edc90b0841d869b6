/** tutelage webhooks …: where campaigns' events are sent, and what became of each. */
import { type Command, Option } from "commander";
import { type CommandContext, query } from "./context.js";
import { listed } from "./listing.js";
import { table } from "./show.js";
import { wholeNumber } from "./wholenumber.js";

interface Webhook {
  id: string;
  url: string;
  event_types: string[];
  enabled: boolean;
  disabled_reason: string;
  pending_deliveries: number;
  dead_deliveries: number;
}

interface Delivery {
  id: string;
  campaign_id: string;
  sequence: number;
  type: string;
  status: string;
  attempts: number;
  due_at?: string;
  last_error: string;
}

interface Change {
  to?: string;
  event?: string[];
  description?: string;
  enable?: boolean;
  disable?: boolean;
}

const keepIt = "Keep it: no later answer has it.";
/** Any number of times; the first takes the place of none. */
const another = (value: string, before: string[] | undefined) => [...(before ?? []), value];

export function addWebhookCommands(program: Command, { api, print, note }: CommandContext): void {
  const webhooks = program
    .command("webhooks")
    .description(
      "create, list, show, update, test, rotate-secret, deliveries, redeliver, delete: events sent to a URL",
    );
  const path = (id: string, rest = "") => `/v1/webhooks/${encodeURIComponent(id)}${rest}`;
  const shown = (webhook: Webhook) => [
    webhook.id,
    webhook.url,
    webhook.event_types.join(", ") || "all",
    webhook.enabled ? "on" : `off (${webhook.disabled_reason})`,
    String(webhook.pending_deliveries),
    String(webhook.dead_deliveries),
  ];
  const header = ["id", "url", "events", "", "pending", "dead"];

  webhooks
    .command("create <url>")
    .description("have events sent there; prints the secret, once")
    .option("--event <type>", "only events of this type, e.g. campaign.finished; may be given more than once", another)
    .option("--description <text>", "whatever is worth remembering")
    .action(async (url: string, options: { event?: string[]; description?: string }) => {
      const made = await api().json<{ webhook: Webhook; secret: string }>("POST", "/v1/webhooks", {
        url,
        event_types: options.event,
        description: options.description,
      });
      print(made, () => `${made.webhook.id}\n${made.secret}`);
      note(`The second line is the secret. ${keepIt}`);
    });

  webhooks.command("list").action(async () => {
    const { webhooks: all } = await api().json<{ webhooks: Webhook[] }>("GET", "/v1/webhooks");
    print(all, () => table(header, all.map(shown)));
  });

  webhooks.command("show <id>").action(async (id: string) => {
    const webhook = await api().json<Webhook>("GET", path(id));
    print(webhook, () => table(header, [shown(webhook)]));
  });

  webhooks
    .command("update <id>")
    .description("change what is given")
    .option("--to <url>", "another receiver")
    .option("--event <type>", "only events of this type; may be given more than once", another)
    .option("--description <text>", "whatever is worth remembering")
    .addOption(new Option("--enable", "send, also what is pending").conflicts("disable"))
    .option("--disable", "send nothing")
    .action(async (id: string, { to, event, description, enable, disable }: Change) => {
      const webhook = await api().json<Webhook>("PATCH", path(id), {
        url: to,
        event_types: event,
        description,
        enabled: enable ?? (disable === true ? false : undefined),
      });
      print(webhook, () => table(header, [shown(webhook)]));
    });

  webhooks
    .command("test <id>")
    .description("send a webhook.test; what became of it is among the deliveries")
    .action(async (id: string) => {
      const delivery = await api().json<Delivery>("POST", path(id, "/test"));
      print(delivery, () => delivery.id);
    });

  webhooks
    .command("rotate-secret <id>")
    .description("make a new secret and print it, once; the present one signs beside it for a while")
    .option("--overlap <seconds>", "for how long; 0 to end it at once", wholeNumber, 86_400)
    .action(async (id: string, { overlap }: { overlap: number }) => {
      const made = await api().json<{ webhook: Webhook; secret: string }>("POST", path(id, "/rotate-secret"), {
        overlap_seconds: overlap,
      });
      print(made, () => made.secret);
      note(keepIt);
    });

  webhooks
    .command("deliveries <id>")
    .description("what was sent or is to be sent, newest first")
    .option("--status <status>", "pending, delivered or dead")
    .option("--campaign <id>", "only those of this campaign")
    .option("--limit <count>", "how many to list", "50")
    .action(async (id: string, { limit, ...filter }: { limit: string; status?: string; campaign?: string }) => {
      const { deliveries } = await listed<{ deliveries: Delivery[]; next_cursor: string }>(
        api(),
        path(id, `/deliveries${query(filter)}`),
        "deliveries",
        { limit, note },
      );
      print(deliveries, () =>
        table(
          ["id", "type", "campaign", "sequence", "status", "tries", "next", ""],
          deliveries.map((one) => [
            one.id,
            one.type,
            one.campaign_id,
            String(one.sequence),
            one.status,
            String(one.attempts),
            one.due_at ?? "",
            one.last_error,
          ]),
        ),
      );
    });

  webhooks
    .command("redeliver <id> [delivery]")
    .description("send a delivery again, or all that are dead")
    .action(async (id: string, delivery: string | undefined) => {
      if (delivery === undefined) {
        const dead = await api().json<{ deliveries: number }>("POST", path(id, "/redeliver"));
        print(dead, () => `${dead.deliveries} to be sent again`);
        return;
      }
      const again = await api().json<Delivery>(
        "POST",
        path(id, `/deliveries/${encodeURIComponent(delivery)}/redeliver`),
      );
      print(again, () => `${again.id}: to be sent again`);
    });

  webhooks.command("delete <id>").action(async (id: string) => {
    await api().delete(path(id));
    print({ deleted: id }, () => `${id}: deleted`);
  });
}
