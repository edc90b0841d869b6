/**
 * A student on the real wire whose behaviour a test decides: one slot, fences,
 * and calls that a test can hold, release and cut. For what a real student
 * cannot be made to do at a chosen moment; what it learns is tested elsewhere.
 */
import { EventEmitter, once } from "node:events";
import { mkdir, readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { TutelageError } from "@tutelage/platform/errors";
import { type RunningServer, serve, served } from "@tutelage/platform/grpc";
import { createLog } from "@tutelage/platform/log";
import {
  type ExportCheckpointRequest,
  type ExportedStudent,
  type Prediction,
  type PredictRequest,
  StudentServiceDefinition,
  type StudentServiceImplementation,
  type TrainIncident,
  type TrainRequest,
} from "@tutelage/proto/student/v1/student";

export interface TestStudent {
  address: string;
  /** Requests in the order of arrival, refused ones too. */
  trained: TrainRequest[];
  predicted: PredictRequest[];
  exported: ExportCheckpointRequest[];
  /** What is done at each step of a job; a test replaces it to hold, fail or count. */
  onStep: (step: number, signal: AbortSignal) => Promise<void>;
  /** The answer to a row. */
  answer: (rowId: string, input: string) => Partial<Prediction>;
  /** What an export comes to. */
  exportOf: (request: ExportCheckpointRequest) => Partial<ExportedStudent>;
  steps: number;
  /** What a training lives through before a step. */
  incident: (step: number) => TrainIncident | undefined;
  /** The loss of a step. */
  loss: (step: number) => number;
  /** Holds the slot as another job would. */
  busy: boolean;
  /** Whether a job has the slot. */
  readonly working: boolean;
  /** Resolves when a job ends, with how. */
  nextEnd(): Promise<"done" | "cancelled" | "failed">;
  /** Ends the process's end of every connection at once. */
  stop(): Promise<void>;
}

/** Starts one on a free port, or again on the port that it had. */
export async function startTestStudent(listen = "127.0.0.1:0"): Promise<TestStudent> {
  const events = new EventEmitter();
  const fences = new Map<string, number>();
  let holding = false;
  const admit = (runId: string, fence: number) => {
    if (student.busy || holding) throw new TutelageError("resource_exhausted", "The slot is taken.");
    if (fence < (fences.get(runId) ?? 0)) throw new TutelageError("failed_precondition", "fence: is old");
    fences.set(runId, fence);
    holding = true;
  };
  const release = (how: string) => {
    holding = false;
    events.emit("end", how);
  };

  const implementation: StudentServiceImplementation = {
    async getDevice() {
      return { device: "cpu" };
    },
    async leaveResumePoint() {
      throw new TutelageError("failed_precondition", "run_id: leaves no resume points");
    },
    async resolveModel() {
      return {};
    },
    async *holdSlot() {},
    async *train(request, { signal }) {
      student.trained.push(request);
      admit(request.runId, request.fence);
      let how = "failed";
      try {
        yield {
          event: { $case: "started", value: { rows: 3, totalSteps: student.steps, tooLongRowIds: ["long"] } },
        };
        for (let step = 1; step <= student.steps; step++) {
          await student.onStep(step, signal);
          const incident = student.incident(step);
          if (incident !== undefined) yield { event: { $case: "incident", value: incident } };
          yield {
            event: {
              $case: "step",
              value: { step, totalSteps: student.steps, loss: student.loss(step), etaSeconds: 1, gradNorm: 1 },
            },
          };
        }
        yield {
          event: { $case: "checkpoint", value: { uri: request.outputUri, sha256: "c".repeat(64), finalLoss: 0.5 } },
        };
        how = "done";
      } finally {
        release(signal.aborted ? "cancelled" : how);
      }
    },
    async *exportCheckpoint(request, { signal }) {
      student.exported.push(request);
      admit(request.runId, request.fence);
      let how = "failed";
      try {
        yield { event: { $case: "stage", value: { name: "writing", number: 1, total: 3 } } };
        await student.onStep(1, signal);
        await mkdir(fileURLToPath(request.outputUri), { recursive: true });
        yield { event: { $case: "exported", value: { uri: request.outputUri, ...student.exportOf(request) } } };
        how = "done";
      } finally {
        release(signal.aborted ? "cancelled" : how);
      }
    },
    async *predict(request, { signal }) {
      student.predicted.push(request);
      if (!request.interactive) admit(request.runId, request.fence);
      let how = "failed";
      try {
        const rows = request.interactive ? request.inlineRows : await rowsOf(request);
        for (let first = request.skipRows; first < rows.length; first += 2) {
          if (!request.interactive) await student.onStep(first / 2 + 1, signal);
          const predictions = rows.slice(first, first + 2).map(({ id, input }) => ({
            rowId: id,
            logProbability: -0.5,
            ...student.answer(id, input),
          }));
          yield { predictions, totalRows: rows.length };
        }
        how = "done";
      } finally {
        if (!request.interactive) release(signal.aborted ? "cancelled" : how);
      }
    },
  };

  const server: RunningServer = await serve({
    listen,
    services: [served(StudentServiceDefinition, implementation)],
    log: createLog("student", "fatal"),
  });
  const student: TestStudent = {
    address: server.address,
    trained: [],
    predicted: [],
    exported: [],
    exportOf: () => ({ check: { passed: true, rows: 3, comparisons: [] } }),
    onStep: async () => {},
    answer: (rowId) => ({ text: rowId }),
    steps: 3,
    incident: () => undefined,
    loss: (step) => 1 / step,
    busy: false,
    get working() {
      return holding;
    },
    nextEnd: async () => (await once(events, "end"))[0],
    stop: () => server.stop(0),
  };
  return student;
}

async function rowsOf({ rows }: PredictRequest): Promise<{ id: string; input: string }[]> {
  const text = await readFile(fileURLToPath(rows?.uri ?? ""), "utf8");
  return text
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
}
