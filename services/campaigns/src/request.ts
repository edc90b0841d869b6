/** Checks a campaign's request against what is there, and resolves every default. */
import { rowText } from "@tutelage/platform/conversation";
import { invalidField, TutelageError } from "@tutelage/platform/errors";
import { readFields } from "@tutelage/platform/extraction";
import { heldOutText } from "@tutelage/platform/heldouttext";
import { nearest } from "@tutelage/platform/suggestion";
import { requirePromptFor, requireTask } from "@tutelage/platform/task";
import type { StartCampaignRequest } from "@tutelage/proto/campaigns/v1/campaigns";
import { Decoding } from "@tutelage/proto/student/v1/student";
import { type Row, Split, type Task, TaskKind } from "@tutelage/proto/task/v1/task";
import type { TeacherProfile } from "@tutelage/proto/teacher/v1/teacher";
import type { ResolvedRequest } from "./campaign.js";
import { type BoundedReading, rowsOf, type Services } from "./clients.js";
import { resolveSettings } from "./settings.js";

/** Fewer seed rows than this cannot be told from noise. */
export const fewestSeedRows = 4;

/**
 * What a campaign may hold in memory of its version, all splits together: its
 * service reads them whole, several campaigns at a time, in a heap of 2 to 4 GB.
 */
export const mostRows = 500_000;
export const mostCharacters = 256 * 1024 * 1024;

/**
 * The request with task, settings and recipe resolved.
 * Throws invalid_argument naming the field (and the row), or not_found.
 */
export async function resolveRequest(
  services: Services,
  request: StartCampaignRequest,
  signal: AbortSignal,
): Promise<ResolvedRequest> {
  const { projectId } = request;
  const task = requireTask(request.task);
  const settings = resolveSettings(request.settings, task);

  const { profiles: students } = await services.training.listStudentProfiles({ projectId }, { signal });
  const student = students.find((profile) => profile.name === request.studentProfile);
  if (student === undefined) throw unknownProfile("student_profile", request.studentProfile, students);
  const recipe = settings.recipe ?? student.recipe;
  if (recipe === undefined) throw new Error(`Student profile ${student.name} has no recipe.`);
  const { profiles: teachers } = await services.teacher.listTeacherProfiles({ projectId }, { signal });
  const teacher = teachers.find((profile) => profile.name === request.teacherProfile);
  if (teacher === undefined) throw unknownProfile("teacher_profile", request.teacherProfile, teachers);

  const versionId = request.datasetVersionId || (await newestVersion(services, request, signal));
  const version = await services.datasets.getVersion({ projectId, id: versionId }, { signal });
  const field = request.datasetVersionId === "" ? "dataset" : "dataset_version_id";
  const bound = readingBound(field);
  if (version.rowCount > mostRows) throw bound.tooLarge();
  const seedRows = await rowsOf(services, projectId, version.id, Split.TRAIN, signal, bound);
  if (seedRows.length < fewestSeedRows) {
    throw invalidField(
      field,
      `has ${seedRows.length} rows in split train; a campaign needs at least ${fewestSeedRows} seed rows. Import more with split "train".`,
      "too_few_seed_rows",
    );
  }
  const heldOut = [
    ...(await rowsOf(services, projectId, version.id, Split.DEV, signal, bound)),
    ...(await rowsOf(services, projectId, version.id, Split.TEST, signal, bound)),
  ];
  refuseOverlap(field, seedRows, heldOut);
  if (task.labels.length > 0) {
    refuseUnknownLabels([...seedRows, ...heldOut], new Set(task.labels.map((label) => label.name)));
  }
  const rows = [...seedRows, ...heldOut];
  requirePromptFor(task, rows);
  if (task.kind === TaskKind.EXTRACTION) refuseMisfits(rows, task);
  if (rows.some(isConversation)) {
    refuseBaseTeacher(teacher, seedRows);
    await requireChatTemplate(services, { projectId, model: student.model, task }, rows, signal);
  }
  return {
    ...request,
    datasetVersionId: versionId,
    datasetId: version.datasetId,
    task,
    settings: { ...settings, recipe },
  };
}

async function newestVersion(
  services: Services,
  { projectId, datasetId }: StartCampaignRequest,
  signal: AbortSignal,
): Promise<string> {
  if (datasetId === "") throw invalidField("dataset_version_id", "is empty, and so is dataset_id; give one of them.");
  const { latestVersionId, name } = await services.datasets.getDataset(
    { projectId, id: datasetId, name: "" },
    { signal },
  );
  if (latestVersionId !== "") return latestVersionId;
  throw invalidField("dataset", `"${name}" has no rows yet; import some first.`, "dataset_empty");
}

function readingBound(field: string): BoundedReading {
  return {
    room: { rows: mostRows, characters: mostCharacters },
    tooLarge: () =>
      invalidField(
        field,
        `is larger than a campaign can hold: at most ${mostRows} rows with ${mostCharacters} characters in all, test and ` +
          "dev rows included. Import a part of it as a dataset of its own.",
        "version_too_large",
      ),
  };
}

/** A text that is trained on and measured on makes the measurement a lie. */
function refuseOverlap(field: string, seedRows: readonly Row[], heldOut: readonly Row[]): void {
  const textOf = (row: Row) => heldOutText(rowText(row));
  const seeds = new Map(seedRows.map((row) => [textOf(row), row]));
  const overlaps = heldOut.filter((row) => seeds.has(textOf(row)));
  const [first] = overlaps;
  if (first === undefined) return;
  throw invalidField(
    field,
    `${overlaps.length} dev or test rows have the text of a train row; the first is ${shownText(first)} (row ` +
      `${first.id}, as row ${seeds.get(textOf(first))?.id}). Import the data again with each text in one split only.`,
    "split_overlap",
  );
}

function refuseUnknownLabels(rows: readonly Row[], labels: ReadonlySet<string>): void {
  const unknown = rows.filter((row) => !labels.has(row.output));
  const [first] = unknown;
  if (first === undefined) return;
  const others = unknown.length === 1 ? "" : ` (and ${unknown.length - 1} more rows have unknown labels)`;
  throw invalidField(
    "task.labels",
    `does not name "${first.output}", the output of ${shownText(first)} (row ${first.id})${others}; add the label to the ` +
      "task, or import the rows with the allowed labels only.",
    "unknown_label",
  );
}

/** An output that lacks a field, or has one too many, would teach the student to do so. */
function refuseMisfits(rows: readonly Row[], { fields }: Task): void {
  for (const row of rows) {
    const read = readFields(row.output, fields);
    if (!("problem" in read)) continue;
    const { field, message } = read.problem;
    throw invalidField(
      "task.fields",
      `do not fit the output of row ${row.id}: ${field === "" ? "it" : `"${field}"`} ${message} ` +
        "Import the rows again with the same fields declared, and each that does not fit is named.",
      "wrong_fields",
    );
  }
}

function isConversation({ messages }: Row): boolean {
  return messages.length > 0;
}

/** A base model continues a list: it keeps neither turns nor roles apart. */
function refuseBaseTeacher({ name, promptForm }: TeacherProfile, seedRows: readonly Row[]): void {
  if (promptForm === "chat" || !seedRows.some(isConversation)) return;
  throw invalidField(
    "teacher_profile",
    `"${name}" is a base model, which cannot write conversations, and rows of the dataset are conversations; name a ` +
      "profile with prompt_form chat.",
    "teacher_cannot_write_conversations",
  );
}

/** Roles in their order are what chat templates are particular about; one row of each order is tried. */
const mostRoleOrders = 32;
const templateDeadlineMs = 20_000;

/**
 * Has the student's model read conversations before anything is paid for. A
 * student that is away or busy is not waited for: its first training says the
 * same by the same name.
 */
async function requireChatTemplate(
  services: Services,
  asked: { projectId: string; model: string; task: Task },
  rows: readonly Row[],
  signal: AbortSignal,
): Promise<void> {
  const byRoles = new Map<string, Row>();
  for (const row of rows.filter(isConversation)) {
    const roles = row.messages.map(({ role }) => role).join(" ");
    if (!byRoles.has(roles) && byRoles.size < mostRoleOrders) byRoles.set(roles, row);
  }
  const decoding = Decoding.fromPartial({ maxNewTokens: 1 });
  try {
    await services.evaluation.predict(
      { ...asked, checkpointUri: "", rows: [...byRoles.values()], decoding },
      { signal, deadline: templateDeadlineMs },
    );
  } catch (error) {
    if (!(error instanceof TutelageError) || !error.reason.startsWith("chat_template_")) return;
    throw invalidField(
      "student_profile",
      `the model cannot be asked in conversations. ${error.message}. Name a student with a chat template that takes ` +
        "these roles, or give rows with an input instead.",
      error.reason,
    );
  }
}

/** A row's text as a message shows it: its beginning, quoted. */
function shownText(row: Row): string {
  const text = rowText(row);
  return JSON.stringify(text.length > 60 ? `${text.slice(0, 59)}…` : text);
}

function unknownProfile(field: string, name: string, profiles: readonly { name: string }[]): TutelageError {
  const names = profiles.map((profile) => profile.name);
  const meant = nearest(name, names);
  const fix = meant === undefined ? "" : ` Did you mean "${meant}"?`;
  return invalidField(
    field,
    `there is no profile "${name}"; the operator offers: ${names.join(", ")}.${fix}`,
    "unknown_profile",
  );
}
