/** How the answers to a seed row went over the iterations. Pure. */
import { type SeedGrade, SeedRowState } from "@tutelage/proto/campaigns/v1/campaigns";

/** How answers went; grades in the order of the iterations. */
export function stateOf(grades: readonly Pick<SeedGrade, "correct">[]): SeedRowState {
  const [first, last] = [grades[0], grades.at(-1)];
  if (first === undefined || last === undefined) return SeedRowState.UNSPECIFIED;
  const right = grades.filter((grade) => grade.correct).length;
  if (last.correct) return right === grades.length ? SeedRowState.KNOWN : SeedRowState.LEARNED;
  if (right === 0) return SeedRowState.STUBBORN;
  return first.correct ? SeedRowState.REGRESSED : SeedRowState.FORGOTTEN;
}
