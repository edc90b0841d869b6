/** Tasks by name: the presets and the project's own. */
import { invalidField, notFound, TutelageError } from "@tutelage/platform/errors";
import { requireTask } from "@tutelage/platform/task";
import type { StartCampaignRequest, StoredTask } from "@tutelage/proto/campaigns/v1/campaigns";
import type { Task } from "@tutelage/proto/task/v1/task";
import { type Preset, presets } from "./presets.js";
import type { TaskRecord, TaskStore } from "./taskstore.js";

const namePattern = /^[A-Za-z0-9._-]{1,100}$/;

export class NamedTasks {
  constructor(private readonly store: TaskStore) {}

  /** Presets first, then the project's own, each by name. */
  async list(projectId: string): Promise<StoredTask[]> {
    return [...[...presets.values()].map(presetMessage), ...(await this.store.list(projectId)).map(ownMessage)];
  }

  /** Throws not_found. */
  async get(projectId: string, name: string): Promise<StoredTask> {
    const found = await this.find(projectId, name);
    if (found === undefined) throw notFound("task", name);
    return found;
  }

  /** Throws invalid_argument that names the field, already_exists for a preset's name. */
  async put(projectId: string, given: Task | undefined): Promise<StoredTask> {
    const task = requireTask(given);
    if (!namePattern.test(task.name)) {
      throw invalidField("task.name", 'must be 1 to 100 letters, digits, ".", "_" or "-", e.g. "support-intents".');
    }
    if (presets.has(task.name)) {
      throw new TutelageError("already_exists", `"${task.name}" is a preset; store your task under another name.`, {
        reason: "task_is_preset",
        fields: [{ field: "task.name", description: "is a preset's; choose another one." }],
      });
    }
    return ownMessage(await this.store.put(projectId, task));
  }

  async delete(projectId: string, name: string): Promise<void> {
    if (presets.has(name)) {
      throw new TutelageError("failed_precondition", `"${name}" is a preset, which cannot be deleted.`, {
        reason: "task_is_preset",
      });
    }
    if (!namePattern.test(name) || !(await this.store.delete(projectId, name))) throw notFound("task", name);
  }

  /** The request with the task that it names, as it now is, in the place of the name. */
  async resolve(request: StartCampaignRequest): Promise<StartCampaignRequest> {
    if (request.taskName === "") return request;
    if (request.task !== undefined) throw invalidField("task_name", "is given beside task; give one of them.");
    const found = await this.find(request.projectId, request.taskName);
    if (found === undefined) {
      const own = (await this.store.list(request.projectId)).map(({ task }) => task.name);
      throw invalidField(
        "task",
        `there is no task "${request.taskName}"; there are: ${[...presets.keys(), ...own].join(", ")}.`,
        "unknown_task",
      );
    }
    return { ...request, task: found.task, taskName: "" };
  }

  private async find(projectId: string, name: string): Promise<StoredTask | undefined> {
    const preset = presets.get(name);
    if (preset !== undefined) return presetMessage(preset);
    if (!namePattern.test(name)) return undefined;
    const own = await this.store.get(projectId, name);
    return own === undefined ? undefined : ownMessage(own);
  }
}

function presetMessage({ task, description }: Preset): StoredTask {
  return { task, preset: true, description, updatedAt: undefined };
}

function ownMessage({ task, updatedAt }: TaskRecord): StoredTask {
  return { task, preset: false, description: "", updatedAt };
}
