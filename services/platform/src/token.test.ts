import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Row } from "@tutelage/proto/task/v1/task";
import { TrainingServiceDefinition } from "@tutelage/proto/training/v1/training";
import { afterEach, expect, test, vi } from "vitest";
import { connect, type RunningServer, serve, served } from "./grpc.js";
import { healthProbe } from "./health.js";
import { createLog } from "./log.js";
import { authorizes, sharedToken } from "./token.js";

const token = "0123456789abcdef";
afterEach(() => vi.unstubAllEnvs());

test("the token comes from a variable or from a file, not from both", async () => {
  const folder = await mkdtemp(join(tmpdir(), "tutelage-token-"));
  try {
    await writeFile(join(folder, "token"), `${token}\n`);
    expect(sharedToken({})).toBeUndefined();
    expect(sharedToken({ TUTELAGE_TOKEN: "" })).toBeUndefined();
    expect(sharedToken({ TUTELAGE_TOKEN: token })).toBe(token);
    expect(sharedToken({ TUTELAGE_TOKEN_FILE: join(folder, "token") })).toBe(token);
    expect(() => sharedToken({ TUTELAGE_TOKEN: token, TUTELAGE_TOKEN_FILE: "x" })).toThrow(/both set/);
    expect(() => sharedToken({ TUTELAGE_TOKEN_FILE: join(folder, "none") })).toThrow(/cannot be read \(ENOENT\)/);
    for (const bad of ["short", "with a space in the middle", `${token}é`]) {
      expect(() => sharedToken({ TUTELAGE_TOKEN: bad })).toThrow(/^TUTELAGE_TOKEN must hold at least 16/);
      expect(() => sharedToken({ TUTELAGE_TOKEN: bad })).not.toThrow(bad);
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

test.each([
  [`Bearer ${token}`, true],
  [`bearer  ${token}`, true],
  [undefined, false],
  ["", false],
  [token, false],
  [`Bearer ${token}0`, false],
  [`Bearer ${token.slice(1)}`, false],
  [`Basic ${token}`, false],
])("the header %j is let in: %j", (header, expected) => {
  expect(authorizes(header, token)).toBe(expected);
});

async function withServer(listen: string, use: (server: RunningServer) => Promise<void>) {
  const methods = Object.keys(TrainingServiceDefinition.methods).map((name) => [name, async () => Row.fromPartial({})]);
  const implementation = { ...Object.fromEntries(methods), listStudentProfiles: async () => ({ profiles: [] }) };
  const services = [served(TrainingServiceDefinition, implementation as never)];
  const server = await serve({ listen, services, log: createLog("test", "fatal") });
  try {
    await use(server);
  } finally {
    await server.stop(100);
  }
}

test("beyond loopback a service listens only with a token, and then every call but health must carry it", async () => {
  await expect(withServer("0.0.0.0:0", async () => {})).rejects.toThrow(/Set TUTELAGE_TOKEN/);
  vi.stubEnv("TUTELAGE_TOKEN", token);
  await withServer("0.0.0.0:0", async ({ address }) => {
    const target = address.replace("0.0.0.0", "127.0.0.1");
    const answerOf = async () => {
      const client = connect(TrainingServiceDefinition, target);
      return await client.listStudentProfiles({ projectId: "default" }).finally(() => client.close());
    };
    expect(await answerOf()).toEqual({ profiles: [] });
    for (const other of ["", "another-0123456789"]) {
      vi.stubEnv("TUTELAGE_TOKEN", other);
      await expect(answerOf()).rejects.toMatchObject({ code: "unavailable", reason: "service_token_refused" });
      const probe = healthProbe(target);
      expect(await probe.check()).toBe("serving");
      probe.close();
    }
  });
});
