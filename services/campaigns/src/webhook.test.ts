import { expect, test } from "vitest";
import {
  deliveryBody,
  newSecret,
  requireDescription,
  requireEventTypes,
  requireWebhookUrl,
  retryDelayMs,
  signature,
} from "./webhook.js";

test("a signature is the specification's", () => {
  // The example of the Standard Webhooks libraries' own tests.
  const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
  const signed = signature([secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, '{"test": 2432232314}');
  expect(signed).toBe("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
});

test("two secrets give two signatures, in their order", () => {
  const secrets = [newSecret(), newSecret()];
  const both = signature(secrets, "a", 1, "{}").split(" ");
  expect(both).toEqual(secrets.map((secret) => signature([secret], "a", 1, "{}")));
  expect(new Set(both).size).toBe(2);
});

test("a secret has a prefix and 32 random bytes", () => {
  const secret = newSecret();
  expect(secret.startsWith("whsec_")).toBe(true);
  expect(Buffer.from(secret.slice(6), "base64")).toHaveLength(32);
  expect(newSecret()).not.toBe(secret);
});

test.each([
  ["https://example.com/hook?from=tutelage", "https://example.com/hook?from=tutelage"],
  ["HTTPS://Example.com", "https://example.com/"],
  ["http://127.0.0.1:9000/", "http://127.0.0.1:9000/"],
  ["http://127.9.9.9/", "http://127.9.9.9/"],
  ["http://[::1]:9000/", "http://[::1]:9000/"],
  ["http://localhost:9000/x", "http://localhost:9000/x"],
  // Other spellings of loopback are written out before they are looked at.
  ["http://2130706433/", "http://127.0.0.1/"],
])("events may be sent to %s", (url, normal) => {
  expect(requireWebhookUrl(url)).toBe(normal);
});

test.each([
  ["", /no URL/],
  ["example.com/hook", /no URL/],
  ["/hook", /no URL/],
  ["ftp://example.com/", /must begin with https/],
  ["file:///etc/passwd", /must begin with https/],
  ["http://example.com/", /http beyond this machine/],
  ["http://localhost.example.com/", /http beyond this machine/],
  ["http://127.0.0.1.example.com/", /http beyond this machine/],
  ["http://169.254.169.254/latest", /http beyond this machine/],
  ["http://0.0.0.0/", /http beyond this machine/],
  ["https://me:secret@example.com/", /credentials/],
  ["https://example.com/#part", /fragment/],
])("events are not sent to %s", (url, why) => {
  expect(() => requireWebhookUrl(url)).toThrow(why);
});

test("a URL has at most 2000 characters", () => {
  const url = (length: number) => "https://example.com/".padEnd(length, "x");
  expect(requireWebhookUrl(url(2_000))).toBe(url(2_000));
  expect(() => requireWebhookUrl(url(2_001))).toThrow(/longer than 2000/);
});

test("types of events are those there are, each once", () => {
  expect(requireEventTypes([])).toEqual([]);
  expect(requireEventTypes(["campaign.failed", "campaign.finished", "campaign.failed"])).toEqual([
    "campaign.failed",
    "campaign.finished",
  ]);
  expect(() => requireEventTypes(["campaign.failed", "campaign.finish"])).toThrow(
    'event_types[1]: is no type of event; did you mean "campaign.finished"?',
  );
  expect(() => requireEventTypes(["x"])).toThrow(/there are: campaign.queued, /);
  expect(() => requireDescription("x".repeat(501))).toThrow(/shorten it/);
});

test("a body is the specification's: type, timestamp, data", () => {
  const at = new Date("2026-01-02T03:04:05.678Z");
  expect(deliveryBody({ type: "campaign.failed", at, data: { sequence: 3 } })).toBe(
    '{"type":"campaign.failed","timestamp":"2026-01-02T03:04:05.678Z","data":{"sequence":3}}',
  );
});

const day = 86_400_000;
test("tries grow apart from 5 s to 4 h, a fifth more or less, and the last is at the end of the day", () => {
  const middle = () => 0.5;
  expect([1, 2, 3, 8, 9, 10].map((attempts) => retryDelayMs(attempts, day, undefined, middle))).toEqual([
    5_000, 15_000, 45_000, 10_935_000, 14_400_000, 14_400_000,
  ]);
  expect(retryDelayMs(1, day, undefined, () => 0)).toBe(4_000);
  expect(retryDelayMs(1, day, undefined, () => 1)).toBe(6_000);
  let left = day;
  const delays: number[] = [];
  for (let delay = retryDelayMs(1, left, undefined, middle); delay !== undefined; ) {
    delays.push(delay);
    left -= delay;
    delay = retryDelayMs(delays.length + 1, left, undefined, middle);
  }
  expect(delays).toHaveLength(13);
  expect(delays.reduce((sum, delay) => sum + delay, 0)).toBe(day);
});

test("never sooner than the receiver asked, and never after the day", () => {
  expect(retryDelayMs(1, day, 60_000, () => 1)).toBe(60_000);
  expect(retryDelayMs(9, day, 60_000, () => 0.5)).toBe(14_400_000);
  expect(retryDelayMs(1, 30_000, 60_000, () => 1)).toBe(30_000);
  expect(retryDelayMs(1, 0, 60_000, () => 1)).toBeUndefined();
});
