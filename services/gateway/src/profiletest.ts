/** What a profile's test asks when the caller names nothing, and what to do about each failure. Pure. */
import { Row, RowOrigin, Split, Task, TaskKind } from "@tutelage/proto/task/v1/task";

/** A task that any teacher can do, with rows to show. */
export const presetTask = Task.fromPartial({
  name: "profile-test",
  kind: TaskKind.CLASSIFICATION,
  promptTemplate: "Review: {input}\nThe reviewer is",
  labels: [
    { name: "pleased", description: "reviews by somebody who liked it" },
    { name: "disappointed", description: "reviews by somebody who did not like it" },
  ],
  teacherInstructions: "The inputs are one-sentence reviews of a bicycle lamp.",
  rowNoun: "reviews",
});

export const presetRow = { input: "The clamp broke on the second ride.", output: "disappointed" };

export const presetExamples = [
  { input: "It lights the whole lane, even in rain.", output: "pleased" },
  { input: "Charged once and never again.", output: "disappointed" },
  { input: "Half as bright as the box says.", output: "disappointed" },
  { input: "My best buy of the year.", output: "pleased" },
];

export const presetInputs = ["The capital of France is", "Two and two make", "A short word for a happy person:"];

/** A row that is shown to a teacher. */
export function shownRow(id: string, { input, output }: { input: string; output: string }): Row {
  return Row.fromPartial({ id, input, output, split: Split.TRAIN, origin: RowOrigin.SEED });
}

const fixes: Record<string, string> = {
  teacher_unauthorized: "Check the key that api_key of the profile refers to, and that it may use this model.",
  teacher_key_missing: "Set what api_key refers to where the teacher service runs, then start it again.",
  teacher_model_not_found: "Check model and base_url of the profile.",
  teacher_quota_exhausted: "Add credit at the provider, or use another profile.",
  teacher_redirected: "Set base_url of the profile to where it points.",
  teacher_rate_limited: "Wait, or lower max_concurrency of the profile.",
  teacher_unavailable: "Check base_url, and that the endpoint runs and can be reached from the teacher service.",
  teacher_timeout: "Raise timeout_ms of the profile, or choose a faster model.",
  teacher_bad_reply:
    "Check that base_url speaks the OpenAI protocol, and that api (chat or completions) fits the model.",
  teacher_reply_too_big: "Check base_url: this is no completion.",
  teacher_refused_request:
    "Read what the endpoint says above; max_tokens_field, temperature and top_p are usual causes.",
  teacher_prompt_too_long: "Give a shorter row, or raise context_tokens of the profile.",
  teacher_model_missing: "Install the package or put the file where the profile's model says.",
  teacher_model_failed: "See the teacher's log.",
  teacher_process_died: "See the teacher's log; the model may need more memory than there is.",
  profile_test_timed_out: "Try again when the accelerator is free, or lower timeout_ms and max_retries of the profile.",
};

/** What to do about a failure of a teacher. */
export function fixFor(code: string): string {
  return fixes[code] ?? "See the teacher's log.";
}

/** "teacher_timeout: The teacher did not …" of a rejected attempt as its parts. */
export function failureOf(text: string): { code: string; message: string } {
  const [, code = "provider_error", message = text] = /^(\w+): ([\s\S]*)$/.exec(text) ?? [];
  return { code, message };
}
