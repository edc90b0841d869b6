/**
 * The students of a deployment: alike, each with an accelerator and one slot
 * of its own. Their calls take turns (channel.ts), so that whoever asks as
 * often as there are students has asked them all.
 */
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

/** Asks the students in turn until one has what is asked for. Throws the last one's error. */
export async function askInTurn<Reply>({ count }: Pick<Students, "count">, ask: () => Promise<Reply>): Promise<Reply> {
  for (let asked = 1; ; asked += 1) {
    try {
      return await ask();
    } catch (error) {
      const isElsewhere = error instanceof TutelageError && error.code === "failed_precondition";
      if (!isElsewhere || asked >= count) throw error;
    }
  }
}
