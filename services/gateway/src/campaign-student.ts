/** /v1/campaigns/{id}/predict: the student that a campaign made, asked. */
import { TutelageError } from "@tutelage/platform/errors";
import type { Campaign } from "@tutelage/proto/campaigns/v1/campaigns";
import { RunStatus } from "@tutelage/proto/run/v1/run";
import { type Checkpoint, Decoding } from "@tutelage/proto/student/v1/student";
import { Row, type Task, TaskKind } from "@tutelage/proto/task/v1/task";
import type { z } from "zod";
import { campaignKey, campaignRef } from "./campaigns.js";
import { problems, projectId } from "./fields.js";
import type { Routes } from "./routes.js";
import { clientGone } from "./streams.js";
import { predictBody, predictResult } from "./task-schemas.js";

/** A prediction slips in between the steps of a training; a step with long rows takes seconds. */
const predictDeadlineMs = 120_000;
const tags = ["campaigns"];

export const campaignStudentRoutes: Routes = (app, { backends, shutdown }) => {
  app.post(
    "/campaigns/:campaign/predict",
    {
      schema: {
        tags,
        summary: "Answer a few inputs, or conversations, with the campaign's student",
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
          rows: askedRows(body),
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

function askedRows({ inputs = [], conversations = [] }: z.output<typeof predictBody>): Row[] {
  const asked = [...inputs.map((input) => ({ input })), ...conversations.map((messages) => ({ messages }))];
  return asked.map((one, index) => Row.fromPartial({ id: String(index), ...one }));
}

/** The student that the campaign returns. Throws failed_precondition before there is one. */
export function finalCheckpoint({ run, outcome }: Campaign): Checkpoint {
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
  return Decoding.fromPartial({ scoreLabels: task?.kind === TaskKind.CLASSIFICATION });
}

function probabilityOf(logProbability: number) {
  return { log_probability: logProbability, probability: Math.exp(logProbability) };
}
