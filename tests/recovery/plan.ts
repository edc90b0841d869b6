/** Which faults a chaos run meets, and when. Pure: the same seed gives the same plan. */
import { createHash } from "node:crypto";

/** What can be killed. Of the first four and of the student there are two replicas. */
export const kinds = [
  "campaigns",
  "training",
  "evaluation",
  "teacher",
  "datasets",
  "gateway",
  "student",
  "postgres",
] as const;
export type Kind = (typeof kinds)[number];

/** What services are connected to through a proxy. */
export const links = ["postgres", "student", "teacher"] as const;
export type Link = (typeof links)[number];

export type Fault = {
  /** Since the fault before. */
  afterMs: number;
  /** Chooses among the replicas: 0 to 1. */
  draw: number;
} & (
  | { what: "kill"; kind: Kind }
  /** SIGSTOP, and SIGCONT when a lease has run out meanwhile. */
  | { what: "stop"; kind: Kind; forMs: number }
  | { what: "cut"; link: Link }
);

export interface PlanOptions {
  seed: number;
  kills: number;
  stops: number;
  cuts: number;
  meanGapMs: number;
}

/** How often each kind is killed, of every 20 kills: those that hold leases most. */
const killShares: Record<Kind, number> = {
  campaigns: 5,
  training: 4,
  evaluation: 3,
  teacher: 4,
  datasets: 1,
  gateway: 1,
  student: 1,
  postgres: 1,
};
const stoppable = ["campaigns", "training", "evaluation", "teacher"] as const;
/** Longer than a lease of 6 s. */
const stopMs = { from: 7_500, to: 10_000 };

/** The faults in their order. The waits between them are exponential, as those of events that know nothing of each other are. */
export function planFaults({ seed, kills, stops, cuts, meanGapMs }: PlanOptions): Fault[] {
  const random = randomOf(`chaos ${seed}`);
  const faults: Pick<Fault, never>[] = [
    ...dealt(kills, deckOf(killShares)).map((kind) => ({ what: "kill", kind })),
    ...dealt(stops, stoppable).map((kind) => ({
      what: "stop",
      kind,
      forMs: Math.round(stopMs.from + random() * (stopMs.to - stopMs.from)),
    })),
    ...dealt(cuts, links).map((link) => ({ what: "cut", link })),
  ];
  return shuffled(faults, random).map((fault) => ({
    ...(fault as Fault),
    // At most four times the mean, so that a run's length is known.
    afterMs: Math.round(Math.min(4, -Math.log(1 - random())) * meanGapMs),
    draw: random(),
  }));
}

/** Every kind as often as its share says. The first ones of a deck are all different, so that a short run meets every kind. */
function deckOf(shares: Record<Kind, number>): Kind[] {
  const deck: Kind[] = [];
  for (let turn = 1; turn <= Math.max(...Object.values(shares)); turn += 1)
    deck.push(...kinds.filter((kind) => shares[kind] >= turn));
  return deck;
}

function dealt<Card>(count: number, deck: readonly Card[]): Card[] {
  return Array.from({ length: count }, (_, index) => deck[index % deck.length] as Card);
}

function shuffled<Item>(items: readonly Item[], random: () => number): Item[] {
  return items
    .map((item) => ({ item, at: random() }))
    .sort((a, b) => a.at - b.at)
    .map(({ item }) => item);
}

/** Numbers from 0 to 1 that depend on the text alone. */
export function randomOf(text: string): () => number {
  let count = 0;
  return () => {
    count += 1;
    return createHash("sha256").update(`${text} ${count}`).digest().readUInt32BE(0) / 2 ** 32;
  };
}
