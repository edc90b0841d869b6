/** /v1/campaigns/{id}/exports and /model: the student taken home. */
import type { ArtifactStore } from "@tutelage/platform/artifacts";
import { notFound, TutelageError } from "@tutelage/platform/errors";
import { watchDeadlineMs } from "@tutelage/platform/grpc";
import { isUuid } from "@tutelage/platform/runs";
import type { Campaign } from "@tutelage/proto/campaigns/v1/campaigns";
import { RunStatus } from "@tutelage/proto/run/v1/run";
import { type ExportedStudent, ExportForm, TuningMethod } from "@tutelage/proto/student/v1/student";
import { Split } from "@tutelage/proto/task/v1/task";
import type { ExportRun, StartExportRunRequest } from "@tutelage/proto/training/v1/training";
import { z } from "zod";
import { type ArchiveFile, archiveKinds, archiveOf } from "./archives.js";
import type { Backends } from "./backends.js";
import { finalCheckpoint } from "./campaign-student.js";
import { campaignKey, campaignRef } from "./campaigns.js";
import { snake } from "./cases.js";
import { enumName, problems, projectId, runSchema } from "./fields.js";
import { modelCard } from "./modelcard.js";
import type { Routes } from "./routes.js";
import { byteStream, clientGone } from "./streams.js";

const tags = ["campaigns"];
const exportRef = campaignRef.extend({ export: z.string().describe("Id of the export") });

const wanted = {
  form: enumName(ExportForm)
    .optional()
    .describe(
      "adapter: PEFT's files beside the base's name; merged: all weights. Left out: adapter, or merged where all weights were trained",
    ),
  include_base: z
    .enum(["true", "false"])
    .optional()
    .describe(
      "An adapter with the base weights in a folder beside it. Left out: true where nobody else can fetch them",
    ),
};

const exportSchema = z
  .object({
    run: runSchema.optional(),
    form: enumName(ExportForm),
    check: z
      .object({
        passed: z.boolean(),
        rows: z.number().int().describe("Of the campaign, asked of the exported student by plain transformers"),
        comparisons: z.array(
          z.object({
            reference: z.string(),
            compared: z.string(),
            same_answers: z.number().int(),
            max_log_probability_difference: z.number().describe("Nats"),
            tolerance: z.number().describe("Nats"),
            passed: z.boolean(),
          }),
        ),
      })
      .optional(),
    size_bytes: z.number().int().optional(),
    sha256: z.string().optional().describe("Over the names and digests of its files"),
    files: z.array(z.object({ name: z.string(), sha256: z.string(), size_bytes: z.number().int() })).optional(),
    includes_base: z.boolean().optional(),
  })
  .meta({ id: "Export" });

export const campaignExportRoutes: Routes = (app, { backends, artifacts, shutdown }) => {
  app.post(
    "/campaigns/:campaign/exports",
    {
      schema: {
        tags,
        summary: "Make the campaign's student ready to be taken home; made once in each form",
        params: campaignRef,
        body: z.strictObject({ form: wanted.form, include_base: z.boolean().optional() }),
        response: { 202: exportSchema, ...problems },
      },
    },
    async ({ params, body }, reply) => {
      const campaign = await backends.campaigns.getCampaign(campaignKey(params.campaign));
      const run = await backends.training.startExportRun(await exportRequest(backends, campaign, body));
      const location = `/v1/campaigns/${params.campaign}/exports/${run.run?.id}`;
      return reply.code(202).header("location", location).send(shown(run));
    },
  );

  app.get(
    "/campaigns/:campaign/exports/:export",
    {
      schema: {
        tags,
        summary: "How far an export is, and what its check found",
        params: exportRef,
        response: { 200: exportSchema, ...problems },
      },
    },
    async ({ params }) => {
      const campaign = await backends.campaigns.getCampaign(campaignKey(params.campaign));
      const { uri } = finalCheckpoint(campaign);
      if (!isUuid(params.export)) throw notFound("export", params.export);
      const run = await backends.training.getExportRun({ projectId, id: params.export });
      if (run.request?.checkpoint?.uri !== uri) throw notFound("export", params.export);
      return shown(run);
    },
  );

  app.get(
    "/campaigns/:campaign/model",
    {
      // It makes what is not made yet; a HEAD must not.
      exposeHeadRoute: false,
      schema: {
        tags,
        summary: "The campaign's student as an archive with its model card; made first where it is not yet",
        params: campaignRef,
        querystring: z.strictObject({
          ...wanted,
          archive: z.enum(["tar", "tar.gz", "zip"]).default("tar"),
        }),
        response: {
          200: {
            description: "The files; README.md says what they are and how to load them",
            content: Object.fromEntries(
              Object.values(archiveKinds).map((type) => [
                type,
                { schema: z.custom<NodeJS.ReadableStream>().meta({ type: "string", format: "binary" }) },
              ]),
            ),
          },
          ...problems,
        },
      },
    },
    async ({ params, query }, reply) => {
      const campaign = await backends.campaigns.getCampaign(campaignKey(params.campaign));
      const include = query.include_base === undefined ? {} : { include_base: query.include_base === "true" };
      const request = await exportRequest(backends, campaign, { form: query.form, ...include });
      const run = await whenMade(backends, request, clientGone(reply, shutdown));
      const card = Buffer.from(modelCard(await cardFacts(backends, campaign, run)));
      const folder = campaign.request?.name.replace(/[^\w.-]+/g, "-").replace(/^\.+/, "") || "student";
      reply
        .type(archiveKinds[query.archive])
        .header("content-disposition", `attachment; filename="${folder}.${query.archive}"`);
      return reply.send(byteStream(archiveOf(query.archive, archiveFiles(folder, card, run.exported, artifacts))));
    },
  );
};

/** What is exported: the campaign's student, checked with rows that it was not trained on where there are any. */
async function exportRequest(
  backends: Backends,
  campaign: Campaign,
  { form, include_base }: { form?: ExportForm | undefined; include_base?: boolean | undefined },
): Promise<StartExportRunRequest> {
  const checkpoint = finalCheckpoint(campaign);
  const full = campaign.request?.settings?.recipe?.method === TuningMethod.FULL;
  const chosen = form ?? (full ? ExportForm.MERGED : ExportForm.ADAPTER);
  const version = await backends.datasets.getVersion({
    projectId,
    id: campaign.request?.datasetVersionId ?? "",
  });
  const { test = 0, dev = 0 } = version.splits ?? {};
  const split = test > 0 ? Split.TEST : dev > 0 ? Split.DEV : Split.TRAIN;
  // A folder of the operator's own cannot be fetched by whoever gets the adapter.
  const includeBase = chosen === ExportForm.ADAPTER && (include_base ?? checkpoint.model.startsWith("file:"));
  return {
    projectId,
    checkpoint,
    form: chosen,
    includeBase: includeBase || (chosen === ExportForm.MERGED && include_base === true),
    task: campaign.request?.task,
    rows: { uri: version.artifactUri, sha256: version.artifactSha256, split, rowIds: [], excludeRootRowIds: [] },
  };
}

/** The export, once it is made. Throws its failure. */
async function whenMade(backends: Backends, request: StartExportRunRequest, signal: AbortSignal): Promise<ExportRun> {
  let run = await backends.training.startExportRun(request);
  if (run.run?.status !== RunStatus.SUCCEEDED) {
    const watched = { projectId, id: run.run?.id ?? "" };
    for await (const now of backends.training.watchExportRun(watched, { signal, deadline: watchDeadlineMs })) run = now;
  }
  if (run.run?.status === RunStatus.SUCCEEDED) return run;
  const failure = run.run?.failure;
  throw new TutelageError("failed_precondition", failure?.message ?? "The export was cancelled; ask again.", {
    reason: failure?.code ?? "export_cancelled",
  });
}

async function cardFacts(backends: Backends, campaign: Campaign, exportRun: ExportRun) {
  const { request, outcome, run } = campaign;
  const version = (id: string | undefined) => backends.datasets.getVersion({ projectId, id: id ?? "" });
  const [report, seedVersion, finalVersion, students, teachers] = await Promise.all([
    backends.campaigns.getReport({ projectId, id: run?.id ?? "" }),
    version(request?.datasetVersionId),
    version(outcome?.datasetVersionId),
    backends.training.listStudentProfiles({ projectId }),
    backends.teacher.listTeacherProfiles({ projectId }),
  ]);
  return {
    report,
    exportRun,
    seedVersion,
    finalVersion,
    student: students.profiles.find(({ name }) => name === request?.studentProfile),
    teacher: teachers.profiles.find(({ name }) => name === request?.teacherProfile),
  };
}

function archiveFiles(
  folder: string,
  card: Buffer,
  exported: ExportedStudent | undefined,
  artifacts: Pick<ArtifactStore, "read">,
): ArchiveFile[] {
  const readme = { name: `${folder}/README.md`, sizeBytes: card.length, read: () => iterated(card) };
  const files = (exported?.files ?? []).map(({ name, sha256, sizeBytes }) => ({
    name: `${folder}/${name}`,
    sizeBytes,
    // A file that was altered breaks the download off at its end.
    read: () => artifacts.read(`${exported?.uri}/${name}`, sha256),
  }));
  return [readme, ...files];
}

async function* iterated(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

function shown({ run, request, exported }: ExportRun) {
  const { check, sizeBytes, sha256, files, includesBase } = exported ?? {};
  const result = exported === undefined ? {} : { check, sizeBytes, sha256, files, includesBase };
  return snake({ run, form: request?.form ?? ExportForm.UNSPECIFIED, ...result });
}
