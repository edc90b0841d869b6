/** A field's name as clients write it: maxRougeL is max_rouge_l. */
export function fieldName(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
