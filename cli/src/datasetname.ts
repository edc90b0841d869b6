/** Names that the server takes, from names that people give. Pure. */

/** The server's bound on a dataset's name. */
const mostCharacters = 100;
/** Letters that are no plain letter with a mark on it. */
const spelled: Record<string, string> = {
  ß: "ss",
  ẞ: "SS",
  æ: "ae",
  Æ: "AE",
  œ: "oe",
  Œ: "OE",
  ø: "o",
  Ø: "O",
  ł: "l",
  Ł: "L",
};

/**
 * The name of the dataset that a campaign's files become: the campaign's name
 * in the letters, digits, ".", "_" and "-" of which a dataset's is made, and
 * what tells its files from others.
 * @param suffix of such characters, shorter than 90
 */
export function datasetName(campaignName: string, suffix: string): string {
  const plain = campaignName
    .replace(/[ßẞæÆœŒøØłŁ]/g, (letter) => spelled[letter] ?? letter)
    .normalize("NFKD")
    .replace(/\p{M}/gu, "");
  const words = plain.replace(/[^A-Za-z0-9._-]+/g, "-");
  const slug = words.slice(0, mostCharacters - suffix.length - 1).replace(/^-+|-+$/g, "");
  return `${slug || "data"}-${suffix}`;
}
