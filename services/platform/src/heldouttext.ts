/** When a text that is trained on says the same as one that is measured on. Pure. */

/**
 * A text as it is compared with held-out ones: case, white space and what ends
 * a sentence do not make it new. Signs within it do: "8-4?" is not "8/4?".
 * Whoever holds rows back goes by this, too: texts that are the same here must
 * lie on the same side, or the campaign is refused for them.
 */
export function heldOutText(text: string): string {
  const folded = text.normalize("NFKC").toLowerCase().replace(/\s+/g, " ").trim();
  return folded.replace(/[\s.!?…"'”’)]+$/u, "") || folded;
}
