/** A user who follows a campaign's events over server-sent events, and comes back with Last-Event-ID whenever the stream breaks. */
import { setTimeout as sleep } from "node:timers/promises";

/** The ids of the events in the order in which they came, until the campaign has ended or the signal aborts. */
export async function follow(url: string, campaignId: string, signal: AbortSignal): Promise<number[]> {
  const seen: number[] = [];
  while (!signal.aborted) {
    const last = seen.at(-1);
    const response = await fetch(`${url}/v1/campaigns/${campaignId}/events`, {
      headers: last === undefined ? {} : { "last-event-id": String(last) },
      signal,
    }).catch(() => undefined);
    if (response?.status === 204) return seen;
    if (response?.ok && response.body !== null) {
      await readIds(response.body, (id) => seen.push(id)).catch(() => {});
    }
    await sleep(200, undefined, { signal }).catch(() => {});
  }
  return seen;
}

/** Tells of the id of each event that comes whole. */
async function readIds(body: AsyncIterable<Uint8Array>, onId: (id: number) => void): Promise<void> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of body) {
    text += decoder.decode(chunk, { stream: true });
    const events = text.split("\n\n");
    text = events.pop() ?? "";
    for (const event of events) {
      const [, id] = /^id: (\d+)$/m.exec(event) ?? [];
      if (id !== undefined) onId(Number(id));
    }
  }
}
