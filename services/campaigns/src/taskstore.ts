/** All SQL of the project's own tasks. */
import type { Database } from "@tutelage/platform/database";
import { Task } from "@tutelage/proto/task/v1/task";
import { and, asc, eq } from "drizzle-orm";
import { tasks } from "./tables.js";

export interface TaskRecord {
  task: Task;
  updatedAt: Date;
}

export class TaskStore {
  constructor(private readonly database: Database) {}

  /** By name. */
  async list(projectId: string): Promise<TaskRecord[]> {
    const rows = await this.database.drizzle
      .select({ task: tasks.task, updatedAt: tasks.updatedAt })
      .from(tasks)
      .where(eq(tasks.projectId, projectId))
      .orderBy(asc(tasks.name));
    return rows.map(toRecord);
  }

  async get(projectId: string, name: string): Promise<TaskRecord | undefined> {
    const [row] = await this.database.drizzle
      .select({ task: tasks.task, updatedAt: tasks.updatedAt })
      .from(tasks)
      .where(and(eq(tasks.projectId, projectId), eq(tasks.name, name)));
    return row === undefined ? undefined : toRecord(row);
  }

  async put(projectId: string, task: Task): Promise<TaskRecord> {
    const updatedAt = new Date();
    await this.database.drizzle
      .insert(tasks)
      .values({ projectId, name: task.name, task, updatedAt })
      .onConflictDoUpdate({ target: [tasks.projectId, tasks.name], set: { task, updatedAt } });
    return { task, updatedAt };
  }

  /** False when there was none. */
  async delete(projectId: string, name: string): Promise<boolean> {
    const gone = await this.database.drizzle
      .delete(tasks)
      .where(and(eq(tasks.projectId, projectId), eq(tasks.name, name)))
      .returning({ name: tasks.name });
    return gone.length > 0;
  }
}

/** Fields that the contract gains later are absent in what is stored now: they take their defaults. */
function toRecord(row: { task: Task; updatedAt: Date }): TaskRecord {
  return { task: Task.fromPartial(row.task), updatedAt: row.updatedAt };
}
