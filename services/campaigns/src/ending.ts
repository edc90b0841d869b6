/** Telling the runs that a campaign started elsewhere what becomes of it. */
import { setTimeout as sleep } from "node:timers/promises";
import type { RunRow } from "@tutelage/platform/runs";
import { StopKind } from "@tutelage/proto/run/v1/owner";
import { askedServices } from "./children.js";
import { type ChildService, type Services, whileAway } from "./clients.js";

const stopDeadlineMs = 5_000;
const stopPollMs = 100;

type Stopped = Parameters<typeof askedServices>[0] & Pick<RunRow<unknown, unknown>, "id" | "projectId" | "fence">;

/**
 * Ends the runs of a campaign that never goes on; or has those of one that may go on come to rest, and waits for that:
 * a resume or a retry has them go on with it. Final ones stay as they are. Nothing that is asked for it under this claim
 * or an earlier one is heard from then on.
 */
export async function stopChildren(
  services: Services,
  run: Stopped,
  kind: StopKind,
  signal: AbortSignal,
): Promise<void> {
  const { id, projectId, fence } = run;
  const request = { projectId, owner: { id, fence }, kind };
  const stop = async (service: ChildService) => {
    for (;;) {
      const call = () => services[service].stopOwnedRuns(request, { signal, deadline: stopDeadlineMs });
      const { stopping } = await whileAway(signal, call);
      if (stopping === 0 || kind === StopKind.CANCEL) return;
      await sleep(stopPollMs, undefined, { signal });
    }
  };
  await Promise.all(askedServices(run).map(stop));
}
