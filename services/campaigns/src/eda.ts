export function edaTexts(text: string, count: number, _parts: readonly (string | number)[], _s: unknown): string[] {
  return Array.from({ length: count }, (_, i) => `${text} v${i}`);
}
