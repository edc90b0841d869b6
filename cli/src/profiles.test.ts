import { expect, test } from "vitest";
import { weatherText } from "./profiles.js";

const weather = {
  profile: { name: "api", model: "gpt", provider: "openai-compatible", description: "", fallback: "local" },
  breaker: { state: "closed", reason: "", failed_probes: 0 },
  max_concurrency: 8,
  senders: [{ replica: "host/1", concurrency: 3, under_way: 2 }],
};

test("a teacher that answers shows how many calls are made, one that does not why and until when", () => {
  expect(weatherText(weather).split("\n")).toEqual([
    "api: gpt (openai-compatible)",
    "answers: calls are made",
    'while it is away, "local" is asked',
    "host/1: 2 calls under way, 3 of at most 8 allowed",
  ]);
  const breaker = {
    state: "open",
    reason: "HTTP 503",
    opened_at: "2026-01-01T00:00:00Z",
    probe_at: "2026-01-01T00:01:00Z",
    failed_probes: 4,
  };
  expect(weatherText({ ...weather, breaker })).toContain(
    "away since 2026-01-01T00:00:00Z: HTTP 503\ntried again at 2026-01-01T00:01:00Z, if there is work for it; 4 tries failed",
  );
  expect(weatherText({ ...weather, breaker: { ...breaker, state: "half_open" } })).toContain("being tried now");
});
