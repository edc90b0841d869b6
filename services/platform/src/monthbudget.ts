/**
 * What a project may use in a month: a wall for all that it does at the same
 * time, in whatever process. What may be used is added before it is, in the
 * transaction that lets it happen; one that would cross a cap is rolled back.
 */
import { sql } from "drizzle-orm";
import type { Database, Transaction } from "./database.js";
import { invalidField } from "./errors.js";
import { requireProject } from "./project.js";

/** One quantity of a month; a cap of 0 is none. */
export interface BudgetLine {
  name: string;
  used: number;
  cap: number;
}

/** A mark of which nobody was told before. */
export interface BudgetNotice extends BudgetLine {
  month: string;
  percent: number;
}

/** Shares of a cap of which somebody is told, in percent. */
export const budgetMarks = [50, 80, 95];

/** Thrown by a charge that would cross a cap, so that its transaction has no effect. */
export class MonthBudgetMet extends Error {
  constructor(
    readonly line: BudgetLine,
    readonly month: string,
  ) {
    super(`The project's cap of ${line.cap} ${line.name} in ${month} is met: ${line.used} are used or under way.`);
  }
}

/** The month of a moment in UTC: "2026-11". */
export function monthOf(moment: Date): string {
  return moment.toISOString().slice(0, 7);
}

/** When a month ends, and the next one's budget is there. */
export function endOfMonth(month: string): Date {
  const [year, number] = month.split("-").map(Number);
  return new Date(Date.UTC(year ?? 0, number ?? 0, 1));
}

/**
 * Adds to what a month has used, or takes away what was set aside in vain.
 * Gives the marks that are passed and of which nobody was told yet. Throws MonthBudgetMet.
 * @param beyondCaps it is used already, and counts whatever the caps are
 * @param tells whether the caller has somebody to tell; if not, whoever is charged next tells
 */
export async function chargeMonth(
  transaction: Transaction,
  projectId: string,
  month: string,
  amounts: Readonly<Record<string, number>>,
  { beyondCaps = false, tells = true }: { beyondCaps?: boolean; tells?: boolean } = {},
): Promise<BudgetNotice[]> {
  const asked = Object.entries(amounts).map(([name, amount]) => ({ name, amount }));
  // In order of name: two charges at once wait for one another, and never in a circle.
  const { rows } = await transaction.execute<{ name: string; used: number; cap: number | null; told: number[] }>(sql`
    with asked as (
      select name, amount from jsonb_to_recordset(${JSON.stringify(asked)}::jsonb) as asked (name text, amount float8)
      order by name),
    changed as (
      insert into month_spending (project_id, month, name, used)
      select ${projectId}, ${month}, name, amount from asked order by name
      on conflict (project_id, month, name) do update set used = month_spending.used + excluded.used
      returning name, used)
    select changed.name, used, cap, array(
      select percent from month_notices n
      where n.project_id = ${projectId} and n.month = ${month} and n.name = changed.name and n.cap = month_caps.cap) as told
    from changed
    left join month_caps on month_caps.project_id = ${projectId} and month_caps.name = changed.name
    order by changed.name`);
  const passed: BudgetNotice[] = [];
  for (const { name, used, cap, told } of rows) {
    const before = used - (amounts[name] ?? 0);
    if (cap === null || used <= before) continue;
    if (used > cap && !beyondCaps) throw new MonthBudgetMet({ name, used: before, cap }, month);
    for (const percent of budgetMarks) {
      const mark = (cap * percent) / 100;
      if (used >= mark && !told.includes(percent)) passed.push({ name, month, percent, used, cap });
    }
  }
  if (passed.length === 0 || !tells) return [];
  // What was set aside may come back and pass the mark again: whoever stores it first tells of it.
  const { rows: first } = await transaction.execute<{ name: string; percent: number }>(sql`
    insert into month_notices (project_id, month, name, percent, cap)
    select ${projectId}, ${month}, name, percent, cap
    from jsonb_to_recordset(${JSON.stringify(passed)}::jsonb) as passed (name text, percent integer, cap float8)
    on conflict do nothing returning name, percent`);
  return passed.filter((one) => first.some(({ name, percent }) => name === one.name && percent === one.percent));
}

/**
 * Takes back what a run that goes was to tell, where no other run owns it: whoever is charged next tells instead.
 * A campaign has told of what its runs passed.
 */
export async function passNoticesOn(transaction: Transaction, projectId: string, runId: string): Promise<void> {
  await transaction.execute(sql`
    delete from month_notices told using runs r,
      jsonb_to_recordset(r.state->'budgetNotices') as notice (month text, name text, percent integer, cap float8)
    where r.project_id = ${projectId} and r.id = ${runId} and r.idempotency_key !~ '^[0-9a-f-]{36}/'
      and told.project_id = r.project_id and told.month = notice.month and told.name = notice.name
      and told.percent = notice.percent and told.cap = notice.cap`);
}

export class MonthBudget {
  constructor(
    private readonly database: Pick<Database, "pool">,
    /** What the service counts. */
    private readonly names: readonly string[],
  ) {}

  /** What a project may use in a month, and has used. */
  async lines(projectId: string, month: string): Promise<BudgetLine[]> {
    const { rows } = await this.database.pool.query(
      `select name, coalesce(used, 0) as used, coalesce(cap, 0) as cap
       from unnest($3::text[]) as name
       left join (select name, used from month_spending where project_id = $1 and month = $2) as spent using (name)
       left join (select name, cap from month_caps where project_id = $1) as capped using (name)`,
      [projectId, month, this.names],
    );
    return rows;
  }

  /** gRPC handlers of a service's month; only its contract's messages are its own. */
  handlers() {
    const current = async (projectId: string) => {
      const month = monthOf(new Date());
      return { month, lines: await this.lines(projectId, month) };
    };
    return {
      getMonthBudget: async (request: { projectId: string }) => await current(requireProject(request.projectId)),
      setMonthBudget: async (request: { projectId: string; caps: { name: string; cap: number }[] }) => {
        const projectId = requireProject(request.projectId);
        await this.setCaps(projectId, request.caps);
        return await current(projectId);
      },
    };
  }

  /** Sets the caps that are named; 0 removes one. Throws invalid_argument. */
  async setCaps(projectId: string, caps: readonly { name: string; cap: number }[]): Promise<void> {
    for (const { name, cap } of caps) {
      if (!this.names.includes(name)) throw invalidField("caps", `"${name}" is none of: ${this.names.join(", ")}.`);
      if (!(cap >= 0 && cap <= Number.MAX_SAFE_INTEGER)) {
        throw invalidField(`caps.${name}`, `is ${cap}; must be from 0 (no cap) to ${Number.MAX_SAFE_INTEGER}.`);
      }
    }
    const given = JSON.stringify(caps);
    await this.database.pool.query(
      `with given as (select * from jsonb_to_recordset($2::jsonb) as given (name text, cap float8)),
       removed as (
         delete from month_caps where project_id = $1 and name in (select name from given where cap = 0))
       insert into month_caps (project_id, name, cap) select $1, name, cap from given where cap > 0
       on conflict (project_id, name) do update set cap = excluded.cap`,
      [projectId, given],
    );
  }
}
