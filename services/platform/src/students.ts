/**
 * The students of a deployment: alike, each with an accelerator and one slot
 * of its own. Their calls take turns (channel.ts), so that whoever asks as
 * often as there are students has mostly asked them all.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { StudentServiceDefinition } from "@tutelage/proto/student/v1/student";
import { z } from "zod";
import { replicas } from "./config.js";
import { TutelageError } from "./errors.js";
import { connect } from "./grpc.js";

/** How many there are, where the address does not say it. */
const count = z.coerce.number().int().min(1).max(1_000).optional();

/** Settings of a service that gives its work to students. */
export const studentSettings = {
  STUDENT_ADDRESS: replicas.default("127.0.0.1:50056"),
  /** Students behind the address: as many as it lists, or one, unless this says more. */
  STUDENT_COUNT: count,
};

export type StudentClient = ReturnType<typeof connect<typeof StudentServiceDefinition>>;

export interface Students {
  client: StudentClient;
  /** So many jobs run at a time. */
  count: number;
}

export function connectStudents(config: { STUDENT_ADDRESS: string; STUDENT_COUNT?: number | undefined }): Students {
  const { STUDENT_ADDRESS: address, STUDENT_COUNT: given } = config;
  return { client: connect(StudentServiceDefinition, address), count: given ?? address.split(",").length };
}

/** Others ask the same students meanwhile and take turns with us, so we may meet the same one again. */
const askingMs = 2_000;
const mostPauseMs = 50;

/** Asks the students until one has what is asked for. Throws the last one's error when none had it for a while. */
export async function askInTurn<Reply>({ count }: Pick<Students, "count">, ask: () => Promise<Reply>): Promise<Reply> {
  const until = Date.now() + askingMs;
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      const isElsewhere = error instanceof TutelageError && error.code === "failed_precondition";
      if (!isElsewhere || count === 1 || Date.now() > until) throw error;
    }
    await sleep(Math.random() * mostPauseMs);
  }
}
