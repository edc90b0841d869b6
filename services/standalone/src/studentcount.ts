/** How many students share a machine. */
import { existsSync } from "node:fs";
import { availableParallelism, totalmem } from "node:os";

const mostStudents = 64;
/** A student keeps up to 4 GB of weights, activations and checkpoints; the embedded teacher takes 2 GB. */
const memoryForTwo = 12e9;

export interface Machine {
  cores: number;
  memoryBytes: number;
  hasGpu: boolean;
}

export function thisMachine(): Machine {
  return { cores: availableParallelism(), memoryBytes: totalmem(), hasGpu: existsSync("/dev/nvidiactl") };
}

/**
 * As many as TUTELAGE_STUDENTS says, or two where there are cores and memory
 * for two and no NVIDIA GPU: two trainings on one thread each take 1.5 times
 * the steps of one on two threads. Throws where it is no such number.
 */
export function studentCount(given: string, { cores, memoryBytes, hasGpu }: Machine): number {
  if (given === "") return cores > 1 && memoryBytes >= memoryForTwo && !hasGpu ? 2 : 1;
  const count = Number(given);
  if (Number.isInteger(count) && count >= 1 && count <= mostStudents) return count;
  throw new Error(`TUTELAGE_STUDENTS is "${given}"; give a whole number from 1 to ${mostStudents}, or leave it out.`);
}
