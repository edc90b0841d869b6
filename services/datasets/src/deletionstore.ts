/** The SQL of holds and of deleting. Every query names the project. */
import { type Database, type Transaction, transact } from "@tutelage/platform/database";
import { and, eq, isNotNull, sql } from "drizzle-orm";
import { artifactLock, type DatasetRecord } from "./store.js";
import { datasets, holds } from "./tables.js";

/** Which dataset, in any state. */
export interface DatasetRef {
  projectId: string;
  /** Empty where the name is given. */
  id: string;
  name: string;
}

/** What keeps a dataset from being deleted: its owner, a holder of a version, or a dataset with one that grew from it. */
export interface User {
  kind: "owner" | "holder" | "dataset";
  name: string;
  /** Empty for an owner. */
  versionId: string;
}

/** A refusal names at most this many. */
const mostUsers = 50;

export class DeletionStore {
  constructor(private readonly database: Database) {}

  /** Places or confirms a hold. False when there is no such version, or its dataset is being deleted. */
  async hold(projectId: string, versionId: string, holder: string, expireSeconds: number): Promise<boolean> {
    return await this.database.drizzle.transaction(async (transaction) => {
      // A deletion that begins waits here, and then sees the hold.
      const found = await transaction.execute(sql`
        select 1 from datasets d join versions v on v.dataset_id = d.id
        where v.project_id = ${projectId} and v.id = ${versionId} and d.deleting_at is null for key share of d`);
      if (found.rowCount === 0) return false;
      const expiresAt = expireSeconds === 0 ? sql`null` : sql`now() + ${expireSeconds} * interval '1 second'`;
      await transaction.execute(sql`
        insert into holds (project_id, version_id, holder, expires_at)
        values (${projectId}, ${versionId}, ${holder}, ${expiresAt})
        on conflict (project_id, version_id, holder) do update
          set expires_at = case when holds.expires_at is null then null else excluded.expires_at end`);
      return true;
    });
  }

  /** Ends all holds of a holder and gives how many there were. */
  async release(projectId: string, holder: string): Promise<number> {
    const { rowCount } = await this.database.drizzle
      .delete(holds)
      .where(and(eq(holds.projectId, projectId), eq(holds.holder, holder)));
    return rowCount ?? 0;
  }

  /**
   * Marks a dataset as being deleted, unless something but `owner` needs it, or `checkOnly`.
   * Undefined when there is none; one that is marked already is given again.
   */
  async begin(
    ref: DatasetRef,
    { checkOnly, owner }: { checkOnly: boolean; owner: string },
  ): Promise<{ dataset: DatasetRecord; users: User[] } | undefined> {
    return await this.database.drizzle.transaction(async (transaction) => {
      // Against holds and commits, which take a key share of it.
      const [dataset] = await transaction
        .select()
        .from(datasets)
        .where(
          and(
            eq(datasets.projectId, ref.projectId),
            ref.id === "" ? eq(datasets.name, ref.name) : eq(datasets.id, ref.id),
          ),
        )
        .for("update");
      if (dataset === undefined) return undefined;
      if (dataset.deletingAt !== null) return { dataset, users: [] };
      const users = await this.users(transaction, dataset);
      if (dataset.owner !== "" && dataset.owner !== owner) {
        users.unshift({ kind: "owner", name: dataset.owner, versionId: "" });
      }
      if (users.length === 0 && !checkOnly) {
        await transaction
          .update(datasets)
          .set({ deletingAt: sql`now()` })
          .where(and(eq(datasets.projectId, dataset.projectId), eq(datasets.id, dataset.id)));
      }
      return { dataset, users };
    });
  }

  private async users(transaction: Transaction, { projectId, id }: DatasetRecord): Promise<User[]> {
    const { rows } = await transaction.execute<{ kind: User["kind"]; name: string; version_id: string }>(sql`
      select 'holder' as kind, h.holder as name, min(h.version_id::text) as version_id
      from holds h join versions v on v.id = h.version_id
      where h.project_id = ${projectId} and v.project_id = ${projectId} and v.dataset_id = ${id}
        and (h.expires_at is null or h.expires_at > now())
      group by h.holder
      union all
      select 'dataset', d.name, min(v.id::text)
      from versions v join datasets d on d.id = v.dataset_id
      where v.project_id = ${projectId} and v.dataset_id <> ${id}
        and v.lineage && (select coalesce(array_agg(o.id), '{}') from versions o
          where o.project_id = ${projectId} and o.dataset_id = ${id})
      group by d.name
      order by 1 desc, 2 limit ${mostUsers}`);
    return rows.map(({ kind, name, version_id }) => ({ kind, name, versionId: version_id }));
  }

  /** Datasets whose deletion has begun and not ended, of every project. */
  async begun(): Promise<DatasetRecord[]> {
    return await this.database.drizzle.select().from(datasets).where(isNotNull(datasets.deletingAt));
  }

  /** A dataset's versions, children before their parents. */
  async versions({ projectId, id }: DatasetRecord): Promise<{ id: string; digest: string; artifactUri: string }[]> {
    const { rows } = await this.database.drizzle.execute<{ id: string; digest: string; artifact_uri: string }>(sql`
      select id, digest, artifact_uri from versions
      where project_id = ${projectId} and dataset_id = ${id} order by ordinal desc`);
    return rows.map((row) => ({ id: row.id, digest: row.digest, artifactUri: row.artifact_uri }));
  }

  /**
   * Removes a version with its rows, holds and keys, and before that, when no
   * other version has the same rows in the same order, its artifact.
   */
  async deleteVersion(
    { projectId }: DatasetRecord,
    version: { id: string; digest: string },
    removeArtifact: () => Promise<number>,
  ): Promise<{ versions: number; rows: number; artifactBytes: number }> {
    // Millions of rows take longer than the other pool's limit for a statement.
    return await transact(this.database.bulkPool, async (transaction) => {
      await transaction.execute(
        sql`select pg_advisory_xact_lock(${artifactLock({ projectId, digest: version.digest })})`,
      );
      const others = await transaction.execute(sql`
        select 1 from versions
        where project_id = ${projectId} and digest = ${version.digest} and id <> ${version.id} limit 1`);
      // Under the lock, or a commit of the same rows between the look and the removal would lose its file.
      const artifactBytes = others.rowCount === 0 ? await removeArtifact() : 0;
      const ofVersion = sql`where project_id = ${projectId} and version_id = ${version.id}`;
      await transaction.execute(sql`delete from commits ${ofVersion}`);
      await transaction.execute(sql`delete from holds ${ofVersion}`);
      const rows = await transaction.execute(sql`delete from rows ${ofVersion}`);
      const versions = await transaction.execute(
        sql`delete from versions where project_id = ${projectId} and id = ${version.id}`,
      );
      return { versions: versions.rowCount ?? 0, rows: rows.rowCount ?? 0, artifactBytes };
    });
  }

  /** Removes the row of a dataset that has no versions left; 0 when another call was faster. */
  async deleteDataset({ projectId, id }: DatasetRecord): Promise<number> {
    const { rowCount } = await this.database.drizzle
      .delete(datasets)
      .where(and(eq(datasets.projectId, projectId), eq(datasets.id, id), isNotNull(datasets.deletingAt)));
    return rowCount ?? 0;
  }
}
