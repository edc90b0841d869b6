/** The runs of other services that a campaign waits for, and who has such: kept in its row, for whoever stops or retries it. */
import type { Run } from "@tutelage/proto/run/v1/run";
import type { CampaignLease, CampaignState } from "./campaign.js";
import type { ChildRun, ChildService } from "./clients.js";

const reportEveryMs = 500;

export class Children {
  /** By the step that waits. */
  private readonly runs: Map<string, ChildRun>;
  private readonly asked: Set<ChildService>;
  private noted: Promise<void> = Promise.resolve();
  private readonly progress = new Map<string, string>();
  private reportedAt = 0;

  constructor(private readonly lease: CampaignLease) {
    // What the last holder waited for is forgotten step by step, as the loop passes there.
    this.runs = new Map(Object.entries(lease.run.state.children ?? {}));
    this.asked = new Set(lease.run.state.asked);
  }

  /** A service will be asked for a run; who stops the campaign must tell it, though nobody should note the run. */
  async starting(service: ChildService): Promise<void> {
    if (!this.asked.has(service)) {
      this.asked.add(service);
      this.noted = this.lease.report({}, { asked: [...this.asked] });
    }
    await this.noted;
  }

  /** A step waits for a run. */
  async started(step: string, child: ChildRun): Promise<void> {
    this.runs.set(step, child);
    await this.lease.report({}, { children: Object.fromEntries(this.runs) });
  }

  /** A step is done. */
  ended(step: string): void {
    this.runs.delete(step);
    this.progress.delete(step);
  }

  /** Passes on, now and then, how far the runs are that have begun. */
  async moved(step: string, { progress }: Run): Promise<void> {
    const { done = 0, total = 0, unit = "", etaSeconds = 0 } = progress ?? {};
    if (total === 0) return;
    const eta = etaSeconds > 0 ? `, ${Math.ceil(etaSeconds)} s left` : "";
    this.progress.set(step, `${step}: ${done}/${total} ${unit}${eta}`);
    if (performance.now() - this.reportedAt < reportEveryMs) return;
    this.reportedAt = performance.now();
    await this.lease.report({ message: [...this.progress.values()].join("; ") });
  }
}

/** Those of a campaign that is not held here; an earlier release notes one at a time. */
export function childrenOf({ state }: { state: Partial<CampaignState> & { child?: ChildRun } }): ChildRun[] {
  const { child, children = {} } = state;
  return [...Object.values(children), ...(child === undefined ? [] : [child])];
}

/** The services that were ever asked for a run of a campaign; an earlier release noted only runs that are waited for. */
export function askedServices(run: Parameters<typeof childrenOf>[0]): ChildService[] {
  return [...new Set([...(run.state.asked ?? []), ...childrenOf(run).map(({ service }) => service)])];
}
