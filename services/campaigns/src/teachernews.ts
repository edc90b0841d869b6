/** What a generation run tells of its teacher, look by look. */
import { RunStatus } from "@tutelage/proto/run/v1/run";
import type { GenerationRun, TeacherWait } from "@tutelage/proto/teacher/v1/teacher";

export class TeacherNews {
  private answers: number | undefined;

  /** Undefined where it tells nothing: a run that was paused waits for nobody, and has not been answered either. */
  of({ run, waiting, results, usage }: GenerationRun): TeacherWait | "answered" | "given_up" | undefined {
    const { status } = run ?? {};
    if (status === RunStatus.FAILED || status === RunStatus.CANCELLED) return "given_up";
    if (waiting !== undefined) return waiting;
    // A reply that was there before says nothing about the teacher of now, nor does a call that failed.
    const answers = results - (usage?.reusedCalls ?? 0);
    const before = this.answers ?? answers;
    this.answers = answers;
    return status === RunStatus.SUCCEEDED || answers > before ? "answered" : undefined;
  }
}
