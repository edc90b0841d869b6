/** /v1/campaigns/{id}/model and /predict: the student that a campaign made. */
import { Readable, type Writable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { ArtifactStore } from "@tutelage/platform/artifacts";
import { TutelageError } from "@tutelage/platform/errors";
import type { Campaign } from "@tutelage/proto/campaigns/v1/campaigns";
import { RunStatus } from "@tutelage/proto/run/v1/run";
import { type Checkpoint, Decoding } from "@tutelage/proto/student/v1/student";
import { Row, type Task } from "@tutelage/proto/task/v1/task";
import tar from "tar-stream";
import { campaignKey, campaignRef } from "./campaigns.js";
import { problems, projectId, streamed } from "./fields.js";
import type { Routes } from "./routes.js";
import { byteStream, clientGone } from "./streams.js";
import { predictBody, predictResult } from "./task-schemas.js";

/** A prediction slips in between the steps of a training; a step with long rows takes seconds. */
const predictDeadlineMs = 120_000;
const tags = ["campaigns"];

export const campaignStudentRoutes: Routes = (app, { backends, artifacts, shutdown }) => {
  app.get(
    "/campaigns/:campaign/model",
    {
      schema: {
        tags,
        summary: "The campaign's student as a tar file",
        params: campaignRef,
        response: {
          200: streamed("application/x-tar", "The checkpoint's files"),
          ...problems,
        },
      },
    },
    async ({ params }, reply) => {
      const campaign = await backends.campaigns.getCampaign(campaignKey(params.campaign));
      const { uri } = finalCheckpoint(campaign);
      const files = await artifacts.list(uri);
      const folder = campaign.request?.name.replace(/[^\w.-]+/g, "-").replace(/^\.+/, "") || "student";
      reply.type("application/x-tar").header("content-disposition", `attachment; filename="${folder}.tar"`);
      return reply.send(byteStream(tarOf(folder, files, artifacts)));
    },
  );

  app.post(
    "/campaigns/:campaign/predict",
    {
      schema: {
        tags,
        summary: "Answer a few inputs with the campaign's student",
        params: campaignRef,
        body: predictBody,
        response: { 200: predictResult, ...problems },
      },
    },
    async ({ params, body }, reply) => {
      const campaign = await backends.campaigns.getCampaign(campaignKey(params.campaign));
      const { uri, model } = finalCheckpoint(campaign);
      const task = campaign.request?.task;
      const { predictions } = await backends.evaluation.predict(
        {
          projectId,
          model,
          checkpointUri: uri,
          task,
          rows: body.inputs.map((input, index) => Row.fromPartial({ id: String(index), input })),
          decoding: campaign.request?.settings?.decoding ?? usualDecoding(task),
        },
        { deadline: predictDeadlineMs, signal: clientGone(reply, shutdown) },
      );
      return {
        predictions: predictions.map((prediction) => ({
          text: prediction.text,
          ...probabilityOf(prediction.logProbability),
          label_scores: prediction.labelScores.map(({ label, logProbability }) => ({
            label,
            ...probabilityOf(logProbability),
          })),
          too_long: prediction.tooLong,
        })),
      };
    },
  );
};

/** The student that the campaign returns. Throws failed_precondition before there is one. */
function finalCheckpoint({ run, outcome }: Campaign): Checkpoint {
  const checkpoint = outcome?.final?.checkpoint;
  if (run?.status === RunStatus.SUCCEEDED && checkpoint !== undefined) return checkpoint;
  const ended = run?.status === RunStatus.FAILED || run?.status === RunStatus.CANCELLED;
  throw new TutelageError(
    "failed_precondition",
    ended
      ? "The campaign ended without a student; its failure says why."
      : "The campaign has no student yet; wait until it has succeeded.",
    { reason: ended ? "campaign_without_student" : "campaign_not_finished" },
  );
}

/** As students are evaluated when the campaign does not say: label scores for a closed set, else greedy. */
function usualDecoding(task: Task | undefined): Decoding {
  return Decoding.fromPartial({ scoreLabels: (task?.labels.length ?? 0) > 0 });
}

function probabilityOf(logProbability: number) {
  return { log_probability: logProbability, probability: Math.exp(logProbability) };
}

/** One file after the other, each read as the client takes it. */
async function* tarOf(
  folder: string,
  files: { name: string; uri: string; sizeBytes: number }[],
  artifacts: Pick<ArtifactStore, "read">,
): AsyncGenerator<Uint8Array> {
  const pack = tar.pack();
  const written = (async () => {
    for (const { name, uri, sizeBytes } of files) {
      await new Promise<void>((done, fail) => {
        const entry = pack.entry({ name: `${folder}/${name}`, size: sizeBytes }, (error) =>
          error ? fail(error) : done(),
        );
        pipeline(Readable.from(artifacts.read(uri)), entry as unknown as Writable).catch(fail);
      });
    }
    pack.finalize();
  })().catch((error: Error) => pack.destroy(error));
  try {
    yield* pack as AsyncIterable<Uint8Array>;
    await written;
  } finally {
    pack.destroy();
  }
}
