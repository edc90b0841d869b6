import { expect, test } from "vitest";
import { startTeacherServer, type TeacherServer } from "./teacher-server.js";
import { forecastOf, type TeacherWeather, teacherWeather } from "./teacher-weather.js";

const weather: TeacherWeather = {
  seed: 7,
  shares: { busy: 0.15, busySeconds: 0.1, busyDate: 0.1, broken: 0.15, overloaded: 0.1, reset: 0.1, halfReply: 0.1 },
  mostFaults: 3,
  latencyMs: { from: 0, to: 20 },
};

/** What came of one try: a status, a text, or that the connection was cut. */
async function ask(server: TeacherServer, prompt: string, seed: number): Promise<string> {
  try {
    const response = await fetch(`${server.url}/chat/completions`, {
      method: "POST",
      headers: { "content-type": "application/json", "idempotency-key": `${server.port} ${prompt} ${seed}` },
      body: JSON.stringify({ model: "m", seed, messages: [{ role: "user", content: `${prompt}\n{"input":"a b c"}` }] }),
    });
    const text = await response.text();
    if (response.status !== 200) return `${response.status} ${response.headers.has("retry-after")}`;
    return JSON.parse(text).choices[0].message.content;
  } catch {
    return "cut";
  }
}

/** Asks each call until it is answered, all at once in the given order; what came of each try, by call. */
async function askAll(server: TeacherServer, names: string[]): Promise<Map<string, string[]>> {
  const seen = new Map<string, string[]>();
  await Promise.all(
    names.map(async (name) => {
      const [prompt = "", seed] = name.split("#");
      const said: string[] = [];
      do said.push(await ask(server, prompt, Number(seed)));
      while (!said.at(-1)?.startsWith("{"));
      seen.set(name, said);
    }),
  );
  return seen;
}

test("replies and faults depend on the request and its try alone, not on the order or the server", async () => {
  const names = Array.from({ length: 40 }, (_, index) => `prompt ${index % 20}#${Math.floor(index / 20)}`);
  const [first, second] = await Promise.all([
    startTeacherServer({ behave: teacherWeather(weather) }),
    startTeacherServer({ behave: teacherWeather(weather) }),
  ]);
  const seen = await askAll(first, names);
  const again = await askAll(second, [...names].reverse());
  for (const name of names) expect(again.get(name)).toEqual(seen.get(name));
  expect(new Set([...seen.values()].map((said) => said.at(-1))).size).toBe(names.length);
  const faults = [...seen.values()].flatMap((said) => said.slice(0, -1));
  expect(new Set(faults)).toEqual(new Set(["429 false", "429 true", "500 false", "503 false", "cut"]));
  expect(Math.max(...[...seen.values()].map((said) => said.length))).toBeLessThanOrEqual(weather.mostFaults + 1);
  // The server's own count: each call answered once.
  const answered = first.calls.filter(({ ended }) => ended === "answered").map(({ key }) => key);
  expect(answered).toHaveLength(names.length);
  expect(new Set(answered).size).toBe(names.length);
  expect(first.calls.filter(({ ended }) => ended === "open")).toEqual([]);
  await Promise.all([first.stop(), second.stop()]);
});

test("another seed is other weather, and shares are kept", () => {
  const calls = Array.from({ length: 2_000 }, (_, index) => ({ prompt: `p${index}`, seed: undefined, try: 1 }));
  const drawn = (seed: number) => calls.map((call) => forecastOf({ ...weather, seed }, call).fault);
  expect(drawn(1)).not.toEqual(drawn(2));
  // 2,000 draws at .15: the standard deviation is 16.
  const broken = drawn(1).filter((fault) => fault === "broken").length;
  expect(broken).toBeGreaterThan(220);
  expect(broken).toBeLessThan(380);
});
