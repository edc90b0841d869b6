/** Telling the runs that a campaign started elsewhere what becomes of it. */
import type { RunRow } from "@tutelage/platform/runs";
import { StopKind } from "@tutelage/proto/run/v1/owner";
import { askedServices } from "./children.js";
import { type Services, stopChildren } from "./clients.js";

type Stopped = Parameters<typeof askedServices>[0] & Pick<RunRow<unknown, unknown>, "id" | "projectId" | "fence">;

/** Ends the runs of a campaign that never goes on. */
export async function endChildren(services: Services, run: Stopped, signal: AbortSignal): Promise<void> {
  await stop(services, run, StopKind.CANCEL, signal);
}

/** Has the runs of a campaign rest that may go on, and waits for that: a resume or a retry has them go on with it. */
export async function restChildren(services: Services, run: Stopped, signal: AbortSignal): Promise<void> {
  await stop(services, run, StopKind.PAUSE, signal);
}

async function stop(services: Services, run: Stopped, kind: StopKind, signal: AbortSignal): Promise<void> {
  const { id, projectId, fence } = run;
  await stopChildren(services, askedServices(run), { projectId, owner: { id, fence }, kind }, signal);
}
