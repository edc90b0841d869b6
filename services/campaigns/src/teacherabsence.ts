/** A campaign whose teacher does not answer: it says so once, waits in its queue, and says once that it goes on. */
import { TryLater } from "@tutelage/platform/runs";
import type { TeacherWait } from "@tutelage/proto/teacher/v1/teacher";
import type { CampaignLease } from "./campaign.js";
import { childrenOf } from "./children.js";
import { type Services, teacherWaitOf } from "./clients.js";
import type { EventType } from "./events.js";
import type { CampaignStore } from "./store.js";

/** A teacher that is tried again sooner than this is waited for in the campaign's place; for a longer time others have it. */
const rideOutMs = 3_000;
/** The teacher's service tries it first, and a campaign finds it done. */
const afterProbeMs = 500;
/** Whatever the teacher's service says, the campaign looks so often. */
const longestLookMs = 60_000;

/** As it is kept in the campaign's row; times as ISO 8601. */
export type StoredTeacherWait = Omit<TeacherWait, "since" | "until"> & { since: string; until: string };

export class TeacherAbsence {
  private stored: StoredTeacherWait | null;

  constructor(
    private readonly lease: CampaignLease,
    private readonly services: Services,
    private readonly store: Pick<CampaignStore, "putState" | "putEvent">,
  ) {
    this.stored = lease.run.state.teacherWait ?? null;
  }

  /** Throws TryLater when the teacher that was waited for is still away: no need to read the campaign's rows for that. */
  async stopIfLasting(): Promise<void> {
    if (this.stored === null) return;
    const wait = await teacherWaitOf(this.services, childrenOf(this.lease.run), this.lease.signal);
    if (wait !== undefined) await this.note(wait);
  }

  /** Tells of the wait and of its end. Throws TryLater where it takes long. */
  async note(wait: TeacherWait | "answered" | "given_up"): Promise<void> {
    const before = this.stored;
    if (typeof wait === "string") {
      if (before === null) return;
      const waitedSeconds = Math.round((Date.now() - Date.parse(before.since)) / 1_000);
      await this.change(null, `teacher.${wait}`, { profile: before.profile, waited_seconds: waitedSeconds });
      return;
    }
    const { since = new Date(), until = new Date(), ...why } = wait;
    const stored = { ...why, since: since.toISOString(), until: until.toISOString() };
    if (before === null) await this.change(stored, "teacher.waiting", why);
    const message = `waiting for teacher "${wait.profile}": ${wait.message}`;
    await this.lease.report({ message }, { teacherWait: stored });
    const leftMs = until.getTime() - Date.now();
    if (leftMs > rideOutMs) throw new TryLater(Math.min(longestLookMs, leftMs + afterProbeMs), message);
  }

  private async change(wait: StoredTeacherWait | null, event: EventType, payload: object): Promise<void> {
    const key = { projectId: this.lease.run.projectId, campaignId: this.lease.run.id };
    await this.lease.write(async (transaction) => {
      await this.store.putState(transaction, key, { teacherWait: wait });
      await this.store.putEvent(transaction, key, event, payload);
    });
    this.stored = wait;
  }
}
