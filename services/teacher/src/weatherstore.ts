/** All SQL of the weather: the breaker of each teacher profile, one for all replicas, and what each of them does. */
import type { Database } from "@tutelage/platform/database";
import { type Breaker, type BreakerState, closedBreaker } from "./breaker.js";

/** A replica's calls to a profile. */
export interface Sender {
  replica: string;
  /** Calls that it may have under way now. */
  concurrency: number;
  underWay: number;
  seenAt: Date;
}

/** Who calls: the holder of a run. */
export interface Holder {
  runId: string;
  fence: number;
}

/** A replica that was not heard of for so long is idle or gone. */
const shownSeconds = 60;

export class WeatherStore {
  constructor(private readonly database: Pick<Database, "pool">) {}

  async breaker(profile: string): Promise<Breaker> {
    const { rows } = await this.database.pool.query<{
      state: BreakerState;
      code: string;
      reason: string;
      openedAt: Date;
      probeInMs: number;
      failedProbes: number;
    }>(
      // Not the time itself: a replica's clock may go otherwise than the database's.
      `select state, code, reason, opened_at as "openedAt", failed_probes as "failedProbes",
         (extract(epoch from probe_at - now()) * 1000)::float8 as "probeInMs"
       from breakers where teacher_profile = $1`,
      [profile],
    );
    if (rows[0] === undefined || rows[0].state === "closed") return closedBreaker;
    const { probeInMs, ...breaker } = rows[0];
    return { ...breaker, probeAt: new Date(Date.now() + probeInMs) };
  }

  /** Opens it; of two replicas that do so at once the first is heard. */
  async open(profile: string, why: { code: string; reason: string; probeInMs: number }): Promise<boolean> {
    const { rowCount } = await this.database.pool.query(
      `insert into breakers (teacher_profile, state, code, reason, opened_at, probe_at)
       values ($1, 'open', $2, $3, now(), now() + $4 * interval '1 millisecond')
       on conflict (teacher_profile) do update set state = 'open', code = excluded.code, reason = excluded.reason,
         opened_at = excluded.opened_at, probe_at = excluded.probe_at, failed_probes = 0
       where breakers.state = 'closed'`,
      [profile, why.code, why.reason, why.probeInMs],
    );
    return rowCount === 1;
  }

  /**
   * True for the one who may now try the provider. One who takes longer than
   * `withinMs`, or does not hold its run any more, counts as dead.
   */
  async takeProbe(profile: string, { runId, fence }: Holder, withinMs: number): Promise<boolean> {
    const { rowCount } = await this.database.pool.query(
      `update breakers b set state = 'half_open', probe_at = now() + $2 * interval '1 millisecond',
         probe_run_id = $3, probe_fence = $4
       where teacher_profile = $1 and state <> 'closed' and (probe_at <= now() or (state = 'half_open' and not exists (
         select 1 from runs r where r.id = b.probe_run_id and r.fence = b.probe_fence and r.status = 'RUNNING'
           and r.lease_until > now())))`,
      [profile, withinMs, runId, fence],
    );
    return rowCount === 1;
  }

  /** The provider still does not answer. */
  async reopen(profile: string, why: { code: string; reason: string; probeInMs: number }): Promise<void> {
    await this.database.pool.query(
      `update breakers set state = 'open', code = $2, reason = $3, failed_probes = failed_probes + 1,
         probe_at = now() + $4 * interval '1 millisecond'
       where teacher_profile = $1 and state = 'half_open'`,
      [profile, why.code, why.reason, why.probeInMs],
    );
  }

  /** The one who was to try the provider did not come to it. */
  async dropProbe(profile: string): Promise<void> {
    await this.database.pool.query(
      "update breakers set state = 'open', probe_at = now() where teacher_profile = $1 and state = 'half_open'",
      [profile],
    );
  }

  /** The provider answers. True for whoever closed it. */
  async close(profile: string): Promise<boolean> {
    const { rowCount } = await this.database.pool.query(
      "update breakers set state = 'closed' where teacher_profile = $1 and state <> 'closed'",
      [profile],
    );
    return rowCount === 1;
  }

  /** Says what this replica does; what is long past goes. */
  async report(profile: string, { replica, concurrency, underWay }: Omit<Sender, "seenAt">): Promise<void> {
    await this.database.pool.query(
      `with gone as (delete from senders where seen_at < now() - interval '1 day')
       insert into senders (teacher_profile, replica, concurrency, under_way, seen_at) values ($1, $2, $3, $4, now())
       on conflict (teacher_profile, replica)
         do update set concurrency = excluded.concurrency, under_way = excluded.under_way, seen_at = now()`,
      [profile, replica, concurrency, underWay],
    );
  }

  /** The replicas that called a profile of late. */
  async senders(profile: string): Promise<Sender[]> {
    const { rows } = await this.database.pool.query<Sender>(
      `select replica, concurrency, under_way as "underWay", seen_at as "seenAt" from senders
       where teacher_profile = $1 and seen_at > now() - $2 * interval '1 second' order by replica`,
      [profile, shownSeconds],
    );
    return rows;
  }
}
