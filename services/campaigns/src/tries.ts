/** Students that an arm has to choose from. */
import type { Proportion } from "@tutelage/proto/evaluation/v1/evaluation";
import type { Recipe } from "@tutelage/proto/student/v1/student";
import { type RowSource, Split } from "@tutelage/proto/task/v1/task";
import { type Campaign, rowSource, type SeedData, trainSource } from "./campaign.js";
import { derivedSeed } from "./random.js";
import { evaluateStudent, type Round, type Student, trainStudent } from "./students.js";

/** A student that an arm tried. */
export interface Try {
  student: Student;
  devAccuracy: Proportion | undefined;
}

/** Plain students to try: as many as the campaign has students to choose from, unless its settings say how many. */
export function plainTryCount(campaign: Campaign, rounds: number): number {
  return campaign.settings.plainTries === 0 ? rounds : campaign.settings.plainTries;
}

/** Plain fine-tuning on the seed rows; its first try is iteration 0's student. */
export async function trainPlain(
  campaign: Campaign,
  seed: SeedData,
  first: Round | undefined,
  rounds: number,
): Promise<Try[]> {
  const shared =
    first?.student === undefined ? undefined : { student: first.student, devAccuracy: first.iteration.devAccuracy };
  return await trainTries(campaign, seed, "plain", plainTryCount(campaign, rounds), {
    rows: trainSource(campaign, seed.version),
    shared,
  });
}

/**
 * Trains an arm's students, which differ in nothing but their seeds, and measures each on the dev rows.
 * @param shared the first one, where somebody else trained it
 */
export async function trainTries(
  campaign: Campaign,
  seed: SeedData,
  name: string,
  count: number,
  { rows, recipe = {}, shared }: { rows: RowSource; recipe?: Partial<Recipe>; shared?: Try | undefined },
): Promise<Try[]> {
  const tryOne = async (number: number): Promise<Try> => {
    const known = number === 0 ? shared : undefined;
    const step = `${name}/${number}`;
    const student =
      known?.student ??
      (await trainStudent(campaign, `${step}/train`, {
        rows,
        recipe,
        seed: derivedSeed(campaign.settings.seed, "train", number),
      }));
    let devAccuracy = known?.devAccuracy;
    if (devAccuracy === undefined && seed.devRows > 0) {
      const dev = rowSource(seed.version, { split: Split.DEV });
      devAccuracy = (await evaluateStudent(campaign, `${step}/dev`, student.checkpoint, dev)).accuracy;
    }
    return { student, devAccuracy };
  };
  return await campaign.sideBySide(Array.from({ length: count }, (_, number) => () => tryOne(number)));
}

/** The best by dev accuracy, the first of equals; the first where there is nothing to choose by. */
export function bestOf<One extends { devAccuracy: Proportion | undefined }>(tries: readonly One[]): One {
  const [first, ...others] = tries;
  if (first === undefined) throw new Error("An arm had no try.");
  return others.reduce(
    (best, one) => ((one.devAccuracy?.value ?? 0) > (best.devAccuracy?.value ?? 0) ? one : best),
    first,
  );
}
