/** The shared token: a gateway beyond loopback, its services, and the command line. */
import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import request from "supertest";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Fixture, startFixture } from "./gateway-fixture.js";

const token = "a-token-of-the-tests-0123";
const main = fileURLToPath(new URL("../../cli/dist/main.js", import.meta.url));
let fixture: Fixture;
let url: string;

beforeAll(async () => {
  process.env.TUTELAGE_TOKEN = token;
  fixture = await startFixture({ GATEWAY_LISTEN: "0.0.0.0:0" });
  url = fixture.url.replace("0.0.0.0", "127.0.0.1");
});
afterAll(async () => {
  delete process.env.TUTELAGE_TOKEN;
  await fixture.stop();
});

test.each(["/v1/datasets", "/v1/profiles/teachers", "/docs/json", "/nothing", "/ready/../v1/datasets", "/v1/health"])(
  "%s without the token is refused",
  async (path) => {
    for (const header of [undefined, "Bearer another-0123456789", token]) {
      const call = request(url).get(path);
      const { status, body, headers } = await (header === undefined ? call : call.set("authorization", header));
      expect([status, body.reason]).toEqual([401, "unauthenticated"]);
      expect(headers["www-authenticate"]).toBe("Bearer");
      expect(headers["content-type"]).toContain("application/problem+json");
      expect(JSON.stringify(body)).not.toContain(token);
    }
  },
);

test("with it every service answers, by any name, but to no other site's page", async () => {
  const get = (path: string) => request(url).get(path).set("authorization", `Bearer ${token}`);
  await get("/v1/datasets").set("host", "tutelage.example:8080").expect(200);
  await get("/v1/campaigns").expect(200);
  const page = await get("/v1/datasets").set("origin", "https://evil.example");
  expect([page.status, page.body.reason]).toEqual([403, "origin_not_allowed"]);
});

test("a browser asks its person for the token, and gets pages with it", async () => {
  const basic = (credentials: string) => `Basic ${Buffer.from(credentials).toString("base64")}`;
  const visit = (path: string) => request(url).get(path).set("accept", "text/html,application/xhtml+xml");
  const { status, headers, body } = await visit("/docs/");
  expect([status, headers["www-authenticate"]]).toEqual([401, 'Basic realm="Tutelage", charset="UTF-8"']);
  expect(body.detail).toContain("as the password");
  const { text } = await visit("/docs/")
    .set("authorization", basic(`anybody:${token}`))
    .expect(200);
  expect(text).toContain("swagger");
  for (const wrong of [`${token}:`, token, `anybody:${token}x`, "anybody:", ":"]) {
    await visit("/docs/").set("authorization", basic(wrong)).expect(401);
  }
  const page = await visit("/v1/datasets")
    .set("authorization", basic(`me:${token}`))
    .set("origin", "https://evil.example");
  expect([page.status, page.body.reason]).toEqual([403, "origin_not_allowed"]);
});

test("health and readiness need no token", async () => {
  await request(url).get("/health").expect(200, { status: "ok" });
  await request(url).get("/ready?x=1").expect(200, { status: "ready" });
});

test("the documentation says so", async () => {
  const { body } = await request(url).get("/docs/json").set("authorization", `Bearer ${token}`).expect(200);
  expect(body.components.securitySchemes.token).toMatchObject({ type: "http", scheme: "bearer" });
  expect(body.security).toEqual([{ token: [] }]);
  expect(body.paths["/health"].get.security).toEqual([]);
});

test("the command line shows the token, and says what to do without it", async () => {
  const tutelage = async (environment: NodeJS.ProcessEnv, command = "profiles") =>
    await promisify(execFile)(process.execPath, [main, "--url", url, command], {
      env: { ...process.env, TUTELAGE_TOKEN: "", ...environment },
    }).then(
      ({ stdout }) => ({ code: 0, stderr: "", stdout }),
      ({ code, stderr, stdout }: { code: number; stderr: string; stdout: string }) => ({ code, stderr, stdout }),
    );
  expect(await tutelage({ TUTELAGE_TOKEN: token })).toMatchObject({ code: 0 });
  const without = await tutelage({});
  expect(without.code).toBe(65);
  expect(without.stderr).toContain("Set TUTELAGE_TOKEN");
  expect((await tutelage({ TUTELAGE_TOKEN_FILE: "/no/such/file" })).code).toBe(66);
  expect((await tutelage({}, "doctor")).stdout).toContain("the server wants its token");
});
