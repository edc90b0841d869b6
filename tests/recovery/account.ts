/** What the teacher's server saw: who would have paid for what, and what was in flight when something broke. */
import type { TeacherCall, TeacherServer } from "../support/teacher-server.js";
import { pricePerToken } from "./topology.js";
import { tagOf } from "./workload.js";

export class TeacherAccount {
  /** Calls whose reply may not have been stored when something broke, each once. */
  private readonly inFlight = new Set<TeacherCall>();

  /**
   * @param isGood whether the weather lets a call through, so that the model works on it
   */
  constructor(
    private readonly server: TeacherServer,
    private readonly isGood: (call: TeacherCall) => boolean,
  ) {}

  /**
   * Notes what is in flight to a replica, or to all: sent, and either not
   * answered or answered after `since`, so that its reply may not be stored yet.
   */
  broke(replica: string | undefined, since: number): void {
    for (const call of this.server.calls) {
      const isTheirs = replica === undefined || call.authorization === `Bearer ${replica}`;
      if (isTheirs && (call.endedAt === undefined || call.endedAt > since)) this.inFlight.add(call);
    }
  }

  get inFlightCount(): number {
    return this.inFlight.size;
  }

  /** Calls on which the model worked although it had before: what a customer pays twice. */
  get repaidCount(): number {
    const paid = this.server.calls.filter(this.isGood).map(({ key }) => key);
    return paid.length - new Set(paid).size;
  }

  /** By campaign, what a provider bills: all on which the model worked, delivered or not. */
  billedMicroUsd(): Map<string, number> {
    const billed = new Map<string, number>();
    for (const call of this.server.calls) {
      if (call.usage === undefined) continue;
      const { prompt_tokens, completion_tokens } = call.usage;
      const cost = prompt_tokens * pricePerToken.prompt + completion_tokens * pricePerToken.completion;
      billed.set(tagOf(call), (billed.get(tagOf(call)) ?? 0) + cost);
    }
    return billed;
  }
}
