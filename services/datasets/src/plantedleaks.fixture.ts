/** Held-out rows of our own making, texts that give them away, and texts that only look like it. */

/** How a leak was made; `kept` says how much of it must be found. */
export const leakKinds = {
  copied: { kept: 1 },
  written_otherwise: { kept: 1 },
  extended: { kept: 1 },
  embedded: { kept: 1 },
  swapped: { kept: 0.95 },
  one_word_more_or_less: { kept: 0.9 },
};
export type LeakKind = keyof typeof leakKinds;

export interface Leak {
  kind: LeakKind;
  text: string;
  /** The held-out row that it says again. */
  row: string;
}

/** A small generator (linear congruential): the same rows each time. */
function dice(seed: number): <Item>(items: readonly Item[]) => Item {
  let state = seed;
  return (items) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return items[Math.floor((state / 2 ** 32) * items.length)] as (typeof items)[number];
  };
}

const kinds = ["bridge", "lake", "market", "tower", "harbour", "garden", "tunnel", "castle", "valley", "library"];
const looks = ["largest", "oldest", "coldest", "busiest", "highest", "deepest", "narrowest", "strangest"];
const people = ["baker", "sailor", "painter", "judge", "farmer", "pilot", "singer", "doctor", "weaver", "miner"];
const deeds = ["invented", "painted", "sold", "repaired", "described", "crossed", "measured", "burned"];
const syllables = ["ba", "ko", "li", "mar", "ne", "os", "pi", "ru", "sta", "ven", "tor", "zel"];

type Pick = ReturnType<typeof dice>;
const name = (pick: Pick) =>
  `${pick(syllables)}${pick(syllables)}${pick(syllables)}`.replace(/^./, (c) => c.toUpperCase());
const number = (pick: Pick) => String(pick([...Array(90).keys()]) + 10);

/** Questions that share their turns of phrase, as TREC's do. */
const questions: ((pick: Pick) => string)[] = [
  (pick) => `What is the ${pick(looks)} ${pick(kinds)} in ${name(pick)}?`,
  (pick) => `Who was the ${pick(people)} that ${pick(deeds)} the ${pick(kinds)} of ${name(pick)}?`,
  (pick) => `How many ${pick(people)}s live near the ${pick(kinds)} of ${name(pick)} today?`,
  (pick) => `Where can I find the ${pick(kinds)} that a ${pick(people)} ${pick(deeds)} in ${name(pick)}?`,
];

/** Problems of some thirty words, as GSM8K's. */
function problem(pick: Pick): string {
  return (
    `${name(pick)} the ${pick(people)} has ${number(pick)} ${pick(kinds)} maps and buys ${number(pick)} more at the ` +
    `${pick(looks)} ${pick(kinds)} of ${name(pick)}. Then a ${pick(people)} from ${name(pick)} takes ${number(pick)} of ` +
    `them away. How many maps are left?`
  );
}

const text = (pick: Pick, long: boolean) => (long ? problem(pick) : pick(questions)(pick));

/** No text of the one is a text of the other. */
export function plantedLeaks(): { heldOut: string[]; leaks: Leak[]; innocent: string[] } {
  const pick = dice(7);
  const heldOut = [...new Set(Array.from({ length: 400 }, (_, index) => text(pick, index % 4 === 0)))];
  const taken = new Set(heldOut);
  const innocent = [...new Set(Array.from({ length: 600 }, (_, index) => text(pick, index % 4 === 0)))].filter(
    (one) => !taken.has(one),
  );
  const leaks = heldOut.slice(0, 240).map((row, index): Leak => {
    const kind = pick(Object.keys(leakKinds) as LeakKind[]);
    return { kind, row, text: made[kind](row, pick, innocent[index] ?? "") };
  });
  return { heldOut, leaks, innocent };
}

const made: Record<LeakKind, (row: string, pick: Pick, other: string) => string> = {
  copied: (row) => row,
  written_otherwise: (row, pick) =>
    pick([
      (one: string) => one.toUpperCase(),
      (one: string) => one.replace(/[?.]/g, " !").replace(/ /g, "  "),
      (one: string) => `"${one.toLowerCase().replace(/[?.]/g, "")}"`,
      (one: string) => one.replace(" the ", ", the "),
    ])(row),
  extended: (row, pick) =>
    pick([
      `Please tell me: ${row}`,
      `${row} Give the answer in one word.`,
      `I was asked "${row}" and did not know it.`,
    ]),
  /** A good half of its words, the whole of a short one, in a text of its own. */
  embedded: (row, _pick, other) => {
    const words = row.split(" ");
    const kept = words.slice(0, words.length < 16 ? words.length : Math.ceil(words.length * 0.6));
    return `${other} Somebody wrote ${kept.join(" ")}`;
  },
  swapped: (row, pick) => {
    const words = row.split(" ");
    const at = pick([...words.keys()].slice(0, -1));
    [words[at], words[at + 1]] = [words[at + 1] as string, words[at] as string];
    return words.join(" ");
  },
  one_word_more_or_less: (row, pick) => {
    const words = row.split(" ");
    const common = words.findIndex((word, at) => at > 0 && ["the", "of", "that", "near"].includes(word));
    return pick([row.replace(" the ", " the very "), words.filter((_, at) => at !== common).join(" ")]);
  },
};
