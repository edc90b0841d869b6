/** SQL that compares versions and traces rows; everything else is in store.ts. Every query names the project. */
import type { Database } from "@tutelage/platform/database";
import type { Row } from "@tutelage/proto/task/v1/task";
import { sql } from "drizzle-orm";
import { rowFromRecord } from "./copytext.js";
import { placeColumns, placeFromRecord, type RowPlace } from "./rowplace.js";
import type { VersionRecord } from "./store.js";

/** The versions whose own rows make up one side of a comparison, without those that both sides share. */
export interface Side {
  projectId: string;
  versionIds: readonly string[];
}

/** A synthetic row as its family's tree needs it. */
export interface Relative {
  id: string;
  parentId: string;
}

export class RowStore {
  constructor(private readonly database: Database) {}

  /** The rows at some places, in their order; one whose dataset was deleted meanwhile is not among them. */
  async rowsAt(projectId: string, places: readonly RowPlace[]): Promise<Row[]> {
    if (places.length === 0) return [];
    return await this.database.drizzle.transaction(async (transaction) => {
      // Without statistics the planner would look through all rows rather than for each by its key.
      await transaction.execute(sql`set local enable_seqscan = off`);
      const { rows } = await transaction.execute(sql`
        select one.* from unnest(
          ${sql.param(places.map(({ versionId }) => versionId))}::uuid[],
          ${sql.param(places.map(({ position }) => position))}::bigint[]
        ) with ordinality as place (version_id, position, number)
        cross join lateral (
          select * from rows r
          where r.project_id = ${projectId} and r.version_id = place.version_id and r.position = place.position limit 1
        ) one
        order by place.number`);
      return rows.map(rowFromRecord);
    });
  }

  /** Where the rows of one side stand that the other has not, after a position, in order. */
  async placesOnlyIn(side: Side, other: Side, limit: number, after: number): Promise<RowPlace[]> {
    if (side.versionIds.length === 0) return [];
    const records = await this.compare(sql`
      select ${placeColumns} from rows r
      where r.project_id = ${side.projectId} and r.version_id = any(${sql.param(side.versionIds)}::uuid[])
        and r.position > ${after} and ${absentIn(other)}
      order by r.position limit ${limit}`);
    return records.map(placeFromRecord);
  }

  /** How many rows of one side the other has not, by split and origin. */
  async countOnlyIn(side: Side, other: Side): Promise<{ split: string; origin: string; rows: number }[]> {
    if (side.versionIds.length === 0) return [];
    const records = await this.compare(sql`
      select r.split, r.origin, count(*)::int as rows from rows r
      where r.project_id = ${side.projectId} and r.version_id = any(${sql.param(side.versionIds)}::uuid[])
        and ${absentIn(other)}
      group by r.split, r.origin order by r.split, r.origin`);
    return records as { split: string; origin: string; rows: number }[];
  }

  /** A row of a version, and the version that added it; undefined when it is not there. 0.15 s at 300,000 rows. */
  async row(version: VersionRecord, rowId: string): Promise<{ row: Row; addedIn: string } | undefined> {
    const { rows } = await this.database.pool.query(
      "select * from rows where project_id = $1 and version_id = any($2::uuid[]) and id = $3",
      [version.projectId, version.lineage, rowId],
    );
    return rows[0] === undefined ? undefined : { row: rowFromRecord(rows[0]), addedIn: rows[0].version_id };
  }

  /** Everything in a version that grew from a seed row, in order. */
  async family(version: VersionRecord, rootId: string): Promise<Relative[]> {
    const { rows } = await this.database.pool.query(
      `select id, parent_row_id as "parentId" from rows
       where project_id = $1 and version_id = any($2::uuid[]) and root_row_id = $3 order by position`,
      [version.projectId, version.lineage, rootId],
    );
    return rows;
  }

  /** Some of a family's rows, in order. */
  async relatives(version: VersionRecord, rootId: string, ids: readonly string[]): Promise<Row[]> {
    if (ids.length === 0) return [];
    const { rows } = await this.database.pool.query(
      `select * from rows where project_id = $1 and version_id = any($2::uuid[]) and root_row_id = $3
         and id = any($4::text[]) order by position`,
      [version.projectId, version.lineage, rootId, ids],
    );
    return rows.map(rowFromRecord);
  }

  private async compare(query: ReturnType<typeof sql>): Promise<Record<string, unknown>[]> {
    return await this.database.drizzle.transaction(async (transaction) => {
      // Right after a COPY there are no statistics: expecting few rows, the planner
      // would look through the whole other side for each row. A hash join never does.
      await transaction.execute(sql`set local enable_nestloop = off`);
      return (await transaction.execute(query)).rows;
    });
  }
}

function absentIn({ projectId, versionIds }: Side) {
  return sql`not exists (
    select 1 from rows o
    where o.project_id = ${projectId} and o.version_id = any(${sql.param(versionIds)}::uuid[]) and o.id = r.id)`;
}
