/**
 * Stops a campaign at the boundaries of its steps, in Postgres: at the end of
 * the transaction that stores a step, before its commit, and at the first
 * statement after it. The service knows nothing of it; it waits there until it
 * is killed.
 */
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";

export interface Boundary {
  /** "before" or "after" the commit of the step. */
  side: "before" | "after";
  step: string;
}

/** Whoever stops at a boundary waits for this advisory lock, which the gates hold for as long as they stand. */
const lock = 20_110_606;

export class Gates {
  private constructor(private readonly client: pg.Client) {}

  /** @param campaign name of the campaign that they stop; every other one passes */
  static async build(url: string, campaign: string): Promise<Gates> {
    const client = new pg.Client({ connectionString: url });
    await client.connect();
    await client.query("select pg_advisory_lock($1)", [lock]);
    await client.query(`
      create schema gates;
      create table gates.passed (step text, side text, primary key (step, side));
      create table gates.committed (step text primary key);
      create function gates.stop(side text, step text) returns void language plpgsql as $$
      begin
        -- The name is seen by others at once, before anything is committed.
        perform set_config('application_name', side || ' ' || step, false);
        perform pg_advisory_xact_lock(${lock});
      end $$;
      -- Whether a step, or a run, is one of the campaign.
      create function gates.is_theirs(changed jsonb) returns boolean language sql as $$
        select request->>'name' = '${campaign}' from campaigns.runs
        where id = coalesce(changed->>'campaign_id', changed->>'id')::uuid $$;
      create function gates.before_commit() returns trigger language plpgsql as $$
      declare here text := case tg_table_name when 'runs' then 'end' else to_jsonb(new)->>'name' end;
      begin
        if not gates.is_theirs(to_jsonb(new)) then return null; end if;
        if not exists (select from gates.passed p where p.step = here and side = 'before') then
          perform gates.stop('before', here);
        end if;
        insert into gates.committed values (here) on conflict do nothing;
        return null;
      end $$;
      create function gates.after_commit() returns trigger language plpgsql as $$
      declare last text := (select step from gates.committed c
        where not exists (select from gates.passed p where p.step = c.step and side = 'after'));
      begin
        if not gates.is_theirs(to_jsonb(new)) then return new; end if;
        if last is not null then perform gates.stop('after', last); end if;
        return new;
      end $$;
      create constraint trigger gate_step after insert on campaigns.steps deferrable initially deferred
        for each row execute function gates.before_commit();
      create constraint trigger gate_end after update on campaigns.runs deferrable initially deferred
        for each row when (new.status = 'SUCCEEDED') execute function gates.before_commit();
      create trigger gate_next before insert on campaigns.steps
        for each row execute function gates.after_commit();
      create trigger gate_next before update of revision on campaigns.runs
        for each row execute function gates.after_commit();`);
    return new Gates(client);
  }

  /** The boundary at which the campaign stands, as soon as it does; undefined when it has ended. */
  async next(campaignId: string, patienceMs: number): Promise<(Boundary & { holder: number }) | undefined> {
    for (const deadline = Date.now() + patienceMs; Date.now() < deadline; await sleep(10)) {
      const { rows } = await this.client.query(
        `select a.pid, a.application_name as name, r.status, split_part(r.lease_holder, '/', 2)::int as holder
         from campaigns.runs r left join pg_stat_activity a
           on a.wait_event = 'advisory' and a.application_name ~ '^(before|after) '
         where r.id = $1`,
        [campaignId],
      );
      const [{ pid, name, status, holder } = {} as never] = rows;
      if (pid !== null) {
        const [side, step] = (name as string).split(" ") as [Boundary["side"], string];
        return { side, step, holder };
      }
      if (!["QUEUED", "RUNNING"].includes(status)) return undefined;
    }
    throw new Error(`The campaign came to no boundary within ${patienceMs} ms.`);
  }

  /**
   * After the holder's death: ends its session as Postgres does when it notices,
   * lets the campaign pass here the next time, and ends the lease, for which a
   * test has no time to wait.
   */
  async pass({ side, step }: Boundary, campaignId: string): Promise<void> {
    await this.client.query("insert into gates.passed values ($1, $2)", [step, side]);
    await this.client.query(
      `select pg_terminate_backend(pid, 5000) from pg_stat_activity
       where wait_event = 'advisory' and application_name ~ '^(before|after) '`,
    );
    await this.client.query("update campaigns.runs set lease_until = now() where id = $1 and status = 'RUNNING'", [
      campaignId,
    ]);
    await this.client.query("select pg_notify('tutelage_runs', 'campaigns:' || $1)", [campaignId]);
  }

  async remove(): Promise<void> {
    await this.client.query(`
      drop trigger gate_step on campaigns.steps; drop trigger gate_end on campaigns.runs;
      drop trigger gate_next on campaigns.steps; drop trigger gate_next on campaigns.runs;
      drop schema gates cascade`);
    await this.client.end();
  }
}
