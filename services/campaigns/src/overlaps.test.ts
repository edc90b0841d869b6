import { Candidate } from "@tutelage/proto/campaigns/v1/campaigns";
import { Overlap, OverlapKind } from "@tutelage/proto/datasets/v1/datasets";
import { expect, test } from "vitest";
import { overlapsByKind, shownSplitOverlaps, withoutHeldOutText } from "./overlaps.js";

const overlapping = (kind: OverlapKind) =>
  Candidate.fromPartial({ input: "said again", rejection: "held_out_overlap", overlap: Overlap.fromPartial({ kind }) });

test("refused candidates are counted by the kind of their overlap, and no others", () => {
  const { EXACT, NEAR_DUPLICATE } = OverlapKind;
  const decided = [
    overlapping(EXACT),
    overlapping(NEAR_DUPLICATE),
    overlapping(EXACT),
    Candidate.fromPartial({ rejection: "near_duplicate" }),
    Candidate.fromPartial({ accepted: true }),
  ];
  expect(overlapsByKind(decided)).toEqual({ exact: 2, near_duplicate: 1 });
  expect(overlapsByKind([])).toEqual({});
});

test("a report does not show the text of what says a held-out row again", () => {
  expect(withoutHeldOutText(overlapping(OverlapKind.EXACT))).toMatchObject({ input: "", messages: [] });
  const other = Candidate.fromPartial({ input: "something new", rejection: "label_doubted" });
  expect(withoutHeldOutText(other)).toBe(other);
});

test("a report counts the rows that were left out, and knows none of a campaign that compared nothing", () => {
  expect(shownSplitOverlaps(undefined)).toBeUndefined();
  const stored = { counts: [], overlaps: [], droppedRowIds: ["a", "b"] };
  expect(shownSplitOverlaps(stored)).toEqual({ counts: [], overlaps: [], droppedRows: 2 });
});
