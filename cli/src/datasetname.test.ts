import { expect, test } from "vitest";
import { datasetName } from "./datasetname.js";

test.each([
  ["support-intents", "support-intents-0123456789"],
  ["Kündigungen & Störungen 2026", "Kundigungen-Storungen-2026-0123456789"],
  ["Straße/Œuvre", "Strasse-OEuvre-0123456789"],
  ["お客様", "data-0123456789"],
  ["?!", "data-0123456789"],
  ["x".repeat(200), `${"x".repeat(89)}-0123456789`],
  [`${"x".repeat(88)} y`, `${"x".repeat(88)}-0123456789`],
])("%s", (name, expected) => {
  const made = datasetName(name, "0123456789");
  expect(made).toBe(expected);
  expect(made).toMatch(/^[A-Za-z0-9._-]{1,100}$/);
});
