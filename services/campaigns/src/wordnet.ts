export const synonyms = (_: string): string[] => [];
