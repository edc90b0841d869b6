/** What a chaos run left in Postgres, read from outside of the services. */
import pg from "pg";

/** Schemas of the services that work on runs. */
const services = ["campaigns", "training", "evaluation", "teacher"] as const;

/** A run and the fence under which it was held. */
export interface Held {
  service: string;
  runId: string;
  fence: number;
}

/** The first time that a fence wrote: its claim, or the first change of the run after it. */
export interface FencedWrite extends Held {
  kind: "claim" | "change";
  /** In ms since 1970. */
  at: number;
}

/** A campaign as it ended, or did not. */
export interface CampaignEnd {
  tag: string;
  id: string;
  status: string;
  failure: string;
  stopReason: string;
  /** Of each iteration's dataset, in order. */
  digests: string[];
  /** Ids of the rows of the newest dataset version, in order. */
  rowIds: string[];
  /** Row ids of the accepted candidates, by candidate. */
  acceptedRowIds: string[];
  /** In the order of the sequence numbers. */
  events: { sequence: number; type: string }[];
}

/** Asks Postgres itself. Throws when it does not answer. */
export async function asking<Answer>(url: string, ask: (client: pg.Client) => Promise<Answer>): Promise<Answer> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 2_000 });
  client.on("error", () => {});
  await client.connect();
  try {
    return await ask(client);
  } finally {
    await client.end().catch(() => {});
  }
}

/** Has Postgres note when each fence wrote first. */
export async function watchWrites(url: string): Promise<void> {
  await asking(url, async (client) => {
    await client.query(`
      create schema chaos;
      create table chaos.writes (service text, run_id uuid, fence bigint, kind text,
        at timestamptz not null default clock_timestamp(), primary key (service, run_id, fence, kind));
      create function chaos.note_write() returns trigger language plpgsql as $$
      begin
        insert into chaos.writes (service, run_id, fence, kind)
        values (tg_table_schema, new.id, new.fence, case when new.fence > old.fence then 'claim' else 'change' end)
        on conflict do nothing;
        return null;
      end $$;`);
    for (const schema of services) {
      await client.query(`create trigger note_write after update of revision on ${schema}.runs
        for each row when (new.revision > old.revision) execute function chaos.note_write()`);
    }
  });
}

/** The runs whose lease a process holds. */
export async function heldBy(url: string, pid: number): Promise<Held[]> {
  const each = services.map(
    (schema) => `select '${schema}' as service, id as "runId", fence::int as fence from ${schema}.runs
      where status = 'RUNNING' and lease_until > now() and split_part(lease_holder, '/', 2) = $1::text`,
  );
  return await asking(url, async (client) => (await client.query(each.join(" union all "), [String(pid)])).rows);
}

export async function fencedWrites(url: string): Promise<FencedWrite[]> {
  return await asking(url, async (client) => {
    const { rows } = await client.query(
      `select service, run_id as "runId", fence::int as fence, kind, (extract(epoch from at) * 1000)::float8 as at
       from chaos.writes`,
    );
    return rows;
  });
}

/** Runs that somebody holds or is to claim, with the fence of their last holder. */
export async function openRuns(url: string): Promise<Held[]> {
  const each = services.map(
    (schema) => `select '${schema}' as service, id as "runId", fence::int as fence from ${schema}.runs
      where status in ('QUEUED', 'RUNNING')`,
  );
  return await asking(url, async (client) => (await client.query(each.join(" union all "))).rows);
}

/** The campaigns that have not ended, by tag, with what they do. */
export async function openCampaigns(url: string): Promise<{ tag: string; status: string; message: string }[]> {
  return await asking(url, async (client) => {
    const { rows } = await client.query(
      `select request->>'name' as tag, status, coalesce(progress->>'message', '') as message from campaigns.runs
       where finished_at is null and status not in ('SUCCEEDED', 'FAILED', 'CANCELLED', 'BUDGET_EXHAUSTED') order by 1`,
    );
    return rows;
  });
}

export async function campaignEnds(url: string): Promise<CampaignEnd[]> {
  return await asking(url, async (client) => {
    const { rows } = await client.query(
      `select request->>'name' as tag, id, status, coalesce(failure->>'message', '') as failure,
         coalesce(state->'outcome'->>'stopReason', '') as "stopReason",
         array(select iteration->>'datasetDigest' from campaigns.iterations
           where campaign_id = r.id order by number) as digests,
         array(select dataset_row.id from datasets.rows dataset_row where version_id = any((
             select lineage from datasets.versions where id::text = (
               select iteration->>'datasetVersionId' from campaigns.iterations
               where campaign_id = r.id order by number desc limit 1))::uuid[])
           order by position) as "rowIds",
         array(select candidate->>'rowId' from campaigns.candidates
           where campaign_id = r.id and accepted order by number) as "acceptedRowIds",
         array(select json_build_object('sequence', sequence, 'type', type) from campaigns.events
           where campaign_id = r.id order by sequence) as events
       from campaigns.runs r order by 1`,
    );
    return rows;
  });
}

/** Evaluations that are done but lack predictions, or have too many. */
export async function unevenEvaluations(url: string): Promise<number> {
  return await asking(url, async (client) => {
    const { rows } = await client.query(
      `select count(*)::int as count from evaluation.runs r where status = 'SUCCEEDED'
         and (select count(*) from evaluation.predictions p where p.run_id = r.id) <> (progress->>'total')::int`,
    );
    return rows[0].count;
  });
}
