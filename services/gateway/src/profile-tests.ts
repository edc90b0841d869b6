/** /v1/profiles/{kind}/{name}/test: what a profile really answers. */
import { randomUUID } from "node:crypto";
import { notFound } from "@tutelage/platform/errors";
import { RunStatus } from "@tutelage/proto/run/v1/run";
import { Decoding } from "@tutelage/proto/student/v1/student";
import { Row, Task, TaskKind } from "@tutelage/proto/task/v1/task";
import {
  type Call,
  type GenerationRun,
  type Result,
  type StartGenerationRunRequest,
  WriteStyle,
} from "@tutelage/proto/teacher/v1/teacher";
import type { FastifyBaseLogger } from "fastify";
import { z } from "zod";
import type { Backends } from "./backends.js";
import { problems, projectId } from "./fields.js";
import { failureOf, fixFor, presetExamples, presetInputs, presetRow, presetTask, shownRow } from "./profiletest.js";
import { profileTestPrefix } from "./profiletestsweep.js";
import type { RouteContext, Routes } from "./routes.js";
import { clientGone } from "./streams.js";
import { taskSchema } from "./task-schemas.js";

const tags = ["profiles"];
/** A cancelled run ends within a heartbeat. */
const stopMs = 15_000;
const answerTokens = 24;

const teacherRef = z.object({ teacher: z.string().describe("Name of the profile") });
const studentRef = z.object({ student: z.string().describe("Name of the profile") });
const rowBody = z.strictObject({ input: z.string().min(1).max(20_000), output: z.string().min(1).max(20_000) });

const teacherTestBody = z
  .strictObject({
    task: taskSchema.optional().describe("Left out: reviews of a bicycle lamp, with rows of their own"),
    row: rowBody.optional().describe("The row that the teacher is to vary; needed with a task"),
    examples: z.array(rowBody).max(20).default([]).describe("Other rows that it is shown"),
  })
  .refine(({ task, row }) => task === undefined || row !== undefined, {
    error: "is missing; give the row of the task that the teacher is to vary",
    path: ["row"],
  })
  .refine(({ task, row }) => row === undefined || task !== undefined, {
    error: "is missing; give the task that the row is of",
    path: ["task"],
  });

const teacherTestResult = z.object({
  ok: z.boolean().describe("A reply came and was read as a row"),
  teacher: z.string(),
  generation_run_id: z.string().describe("Its calls stand in the ledger"),
  parsed: z.object({ input: z.string(), output: z.string() }).optional().describe("The row that the reply was read as"),
  error: z
    .object({ code: z.string(), message: z.string(), fix: z.string() })
    .optional()
    .describe("Why there is no row, and what to do"),
  calls: z
    .array(
      z.object({
        status: z.string(),
        error_code: z.string(),
        prompt: z.string().describe("As sent; messages as JSON for chat"),
        raw_reply: z.string(),
        prompt_tokens: z.number().int(),
        completion_tokens: z.number().int(),
        cost_micro_usd: z.number().int(),
        seconds: z.number(),
      }),
    )
    .describe("Every call that was made, retries too"),
  seconds: z.number().describe("In all, waiting for the accelerator included"),
});

const studentTestBody = z.strictObject({
  inputs: z.array(z.string().min(1).max(20_000)).min(1).max(8).default(presetInputs),
});

const studentTestResult = z.object({
  student: z.string(),
  model: z.string(),
  answers: z.array(
    z.object({ input: z.string(), text: z.string(), log_probability: z.number(), too_long: z.boolean() }),
  ),
  seconds: z.number().describe("In all; the first time the model is loaded"),
});

export const profileTestRoutes: Routes = (app, { backends, shutdown, profileTestMs }) => {
  app.post(
    "/profiles/teachers/:teacher/test",
    {
      schema: {
        tags,
        summary: "One small real generation: prompt, raw reply, what was read from it, cost; or why not",
        params: teacherRef,
        body: teacherTestBody,
        response: { 200: teacherTestResult, ...problems },
      },
    },
    async ({ params, body, log }, reply) => {
      const { profiles } = await backends.teacher.listTeacherProfiles({ projectId });
      if (!profiles.some(({ name }) => name === params.teacher)) throw notFound("teacher profile", params.teacher);
      const gone = clientGone(reply, shutdown);
      return await testTeacher({ backends, profileTestMs, log }, testRequest(params.teacher, body), gone);
    },
  );

  app.post(
    "/profiles/students/:student/test",
    {
      schema: {
        tags,
        summary: "What the base model of a student says to a few inputs, before any training",
        params: studentRef,
        body: studentTestBody,
        response: { 200: studentTestResult, ...problems },
      },
    },
    async ({ params, body }, reply) => {
      const { profiles } = await backends.training.listStudentProfiles({ projectId });
      const profile = profiles.find(({ name }) => name === params.student);
      if (profile === undefined) throw notFound("student profile", params.student);
      const began = performance.now();
      const { predictions } = await backends.evaluation.predict(
        {
          projectId,
          model: profile.model,
          checkpointUri: "",
          task: Task.fromPartial({ name: "profile-test", kind: TaskKind.TEXT, promptTemplate: "{input}" }),
          rows: body.inputs.map((input, index) => Row.fromPartial({ id: String(index), input })),
          decoding: Decoding.fromPartial({ maxNewTokens: answerTokens }),
        },
        { deadline: profileTestMs, signal: clientGone(reply, shutdown) },
      );
      return {
        student: profile.name,
        model: profile.model,
        answers: predictions.map(({ text, logProbability, tooLong }, index) => ({
          input: body.inputs[index] ?? "",
          text,
          log_probability: logProbability,
          too_long: tooLong,
        })),
        seconds: (performance.now() - began) / 1_000,
      };
    },
  );
};

function testRequest(teacherProfile: string, body: z.output<typeof teacherTestBody>): StartGenerationRunRequest {
  const examples = body.task === undefined ? presetExamples : body.examples;
  const order = {
    seedRow: shownRow("row", body.row ?? presetRow),
    wrongAnswer: "",
    exampleRows: examples.map((row, index) => shownRow(`example-${index}`, row)),
    count: 1,
    openingTexts: [],
    maxAttempts: 1,
    firstAttempt: 0,
  };
  return {
    projectId,
    idempotencyKey: `${profileTestPrefix}${randomUUID()}/`,
    teacherProfile,
    task: body.task === undefined ? presetTask : Task.fromPartial(body.task),
    work: { $case: "write", value: { orders: [order], style: WriteStyle.VARY } },
    // A stored reply would say nothing about the teacher of now.
    replicateSeed: Math.floor(Math.random() * Number.MAX_SAFE_INTEGER),
    budget: undefined,
    replyScope: "",
    patienceSeconds: 0,
    // Whoever tests a teacher wants to know of now, not of when it was last away.
    tryNow: true,
    owner: undefined,
  };
}

/**
 * One generation to its end, through the ledger; cancelled when it takes too
 * long or the caller has gone. However it ends, the run is deleted.
 */
async function testTeacher(
  {
    backends: { teacher },
    profileTestMs,
    log,
  }: Pick<RouteContext, "backends" | "profileTestMs"> & { log: FastifyBaseLogger },
  request: StartGenerationRunRequest,
  gone: AbortSignal,
) {
  const began = performance.now();
  const started = await teacher.startGenerationRun(request);
  const which = { projectId, id: started.run?.id ?? "" };
  try {
    const { run, timedOut } = await endOf(teacher, started, profileTestMs, gone);
    const results: Result[] = [];
    for await (const batch of teacher.listResults(which)) results.push(...batch.results);
    const calls: Call[] = [];
    for await (const batch of teacher.listCalls(which)) calls.push(...batch.calls);
    return testResult(request.teacherProfile, run, results[0]?.outcome, calls, timedOut ? profileTestMs : 0, began);
  } finally {
    // The caller has it all now, or has gone: prompt and reply go, what was paid stays on the account.
    await teacher
      .deleteGenerationRuns({ projectId, keyPrefix: request.idempotencyKey })
      .catch((error: unknown) =>
        log.warn({ err: error, ...which }, "could not delete a profile's test; the sweep will"),
      );
  }
}

/** Waits for a run's end; cancels it when the time is up, or the caller has gone, of which it then throws. */
async function endOf(
  teacher: Backends["teacher"],
  started: GenerationRun,
  profileTestMs: number,
  gone: AbortSignal,
): Promise<{ run: GenerationRun; timedOut: boolean }> {
  const which = { projectId, id: started.run?.id ?? "" };
  const timeout = AbortSignal.timeout(profileTestMs);
  let run = started;
  try {
    const signal = AbortSignal.any([gone, timeout]);
    for await (const now of teacher.watchGenerationRun(which, { signal, deadline: profileTestMs + stopMs })) run = now;
    return { run, timedOut: false };
  } catch (error) {
    await teacher.cancelGenerationRun(which);
    if (gone.aborted || !timeout.aborted) throw error;
  }
  // Its call is given up and counted before the run is final.
  for await (const now of teacher.watchGenerationRun(which, { signal: gone, deadline: stopMs })) run = now;
  return { run, timedOut: true };
}

/** @param timedOutMs after so long it was cancelled; 0 when it was not */
function testResult(
  teacher: string,
  run: GenerationRun,
  outcome: Result["outcome"],
  calls: readonly Call[],
  timedOutMs: number,
  began: number,
) {
  const parsed = outcome?.$case === "candidate" ? { parsed: outcome.value } : {};
  const failure = failed(run, outcome, timedOutMs);
  return {
    ok: failure === undefined,
    teacher,
    generation_run_id: run.run?.id ?? "",
    ...parsed,
    ...(failure === undefined ? {} : { error: failure }),
    calls: calls.map((call) => ({
      status: call.status,
      error_code: call.errorCode,
      prompt: call.prompt,
      raw_reply: call.rawReply,
      prompt_tokens: call.promptTokens,
      completion_tokens: call.completionTokens,
      cost_micro_usd: call.costMicroUsd,
      seconds: call.durationMs / 1_000,
    })),
    seconds: (performance.now() - began) / 1_000,
  };
}

/** Why there is no row: the run's failure, an answer that never came, or a reply that is no row. */
function failed({ run }: GenerationRun, outcome: Result["outcome"], timedOutMs: number) {
  const named = (code: string, message: string) => ({ code, message, fix: fixFor(code) });
  if (timedOutMs > 0) {
    const waiting = run?.progress?.message ?? "";
    return named("profile_test_timed_out", `No answer came within ${timedOutMs / 1_000} s. ${waiting}`.trim());
  }
  if (run?.status !== RunStatus.SUCCEEDED) {
    return named(run?.failure?.code ?? "cancelled", run?.failure?.message ?? "The test was cancelled.");
  }
  if (outcome?.$case === "candidate") return undefined;
  if (outcome?.$case !== "rejection") return named("no_answer", "The teacher gave nothing.");
  const { code, message } = outcome.value;
  if (code === "provider_error") {
    const provider = failureOf(message);
    return named(provider.code, provider.message);
  }
  const fix =
    "The teacher answers, but not in the form that is asked: see the raw reply. One such reply is no reason for worry; repeat the test, and if it stays so, try prompt_form or a stronger model.";
  return { code, message, fix };
}
