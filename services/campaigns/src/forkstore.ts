/** The SQL of forks. */
import type { Database, Transaction } from "@tutelage/platform/database";
import { sql } from "drizzle-orm";
import { takeOverReviews } from "./reviewstore.js";
import type { CampaignKey } from "./store.js";

/** How many iterations of a campaign have made a version, in a row from 0. */
export async function finishedIterations({ pool }: Pick<Database, "pool">, key: CampaignKey): Promise<number> {
  const { rows } = await pool.query<{ name: string }>(
    `select c.name from steps c join steps e on e.campaign_id = c.campaign_id
       and e.name = replace(c.name, '/commit', '/close')
     where c.project_id = $1 and c.campaign_id = $2 and c.name ~ '^iteration/[0-9]+/commit$'
       and c.output->>'versionId' <> ''`,
    [key.projectId, key.campaignId],
  );
  const numbers = new Set(rows.map(({ name }) => Number(name.split("/")[1])));
  let finished = 0;
  while (numbers.has(finished)) finished += 1;
  return finished;
}

/** Takes over all that a campaign did before an iteration: its steps, iterations, candidates and grades. */
export async function takeOver(
  transaction: Transaction,
  { projectId, campaignId }: CampaignKey,
  fork: { campaignId: string; iteration: number },
): Promise<void> {
  const { campaignId: parent, iteration } = fork;
  const from = sql`project_id = ${projectId} and campaign_id = ${parent}::uuid`;
  // What is done once, at the beginning, and what belongs to an iteration; an event's step ends in its number.
  await transaction.execute(sql`
    insert into steps (project_id, campaign_id, name, output, seconds, finished_at, shared)
    select project_id, ${campaignId}::uuid, name, output, seconds, finished_at, true from steps
    where ${from} and (
      name in ('caps', 'overlaps') or name ~ '^(preflight|teacher_record|audit)(/|$)' or name ~ '^event/preflight'
      or (name ~ '^iteration/[0-9]+/' and split_part(name, '/', 2)::int < ${iteration})
      or (name ~ '^event/(iteration|phase|rows)[a-z_.]*/[0-9]+(/|$)' and split_part(name, '/', 3)::int < ${iteration}))`);
  await transaction.execute(sql`
    insert into iterations (project_id, campaign_id, number, iteration)
    select project_id, ${campaignId}::uuid, number, iteration from iterations where ${from} and number < ${iteration}`);
  await transaction.execute(sql`
    insert into candidates (project_id, campaign_id, number, iteration, accepted, candidate)
    select project_id, ${campaignId}::uuid, number, iteration, accepted, candidate
    from candidates where ${from} and iteration < ${iteration}`);
  await transaction.execute(sql`
    insert into seed_grades (project_id, campaign_id, row_id, iteration, correct, answer, expected_probability)
    select project_id, ${campaignId}::uuid, row_id, iteration, correct, answer, expected_probability
    from seed_grades where ${from} and iteration < ${iteration}`);
  await takeOverReviews(transaction, { projectId, campaignId }, { projectId, campaignId: parent }, iteration);
}

/** The forks of a campaign that are there. */
export async function forksOf({ pool }: Pick<Database, "pool">, key: CampaignKey): Promise<string[]> {
  const { rows } = await pool.query<{ id: string }>(
    `select id from runs where project_id = $1 and request ? 'fork' and request->'fork'->>'campaignId' = $2
       and deleting_at is null order by created_at`,
    [key.projectId, key.campaignId],
  );
  return rows.map(({ id }) => id);
}
