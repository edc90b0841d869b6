import { once } from "node:events";
import { createServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, expect, test } from "vitest";
import { Api } from "./api.js";
import { exitCodes } from "./exit.js";

const timeoutMs = 400;
let server: Server | undefined;

afterEach(() => {
  server?.closeAllConnections();
  server?.close();
  server = undefined;
});

async function serve(listener: RequestListener): Promise<Api> {
  server = createServer(listener).listen(0, "127.0.0.1");
  await once(server, "listening");
  return new Api(`http://127.0.0.1:${(server.address() as AddressInfo).port}`, timeoutMs);
}

test("a read that is not answered ends as what it is, not as a server that is away", async () => {
  const api = await serve(() => {});
  await expect(api.json("GET", "/v1/usage")).rejects.toMatchObject({
    code: exitCodes.unavailable,
    message: expect.stringContaining("took the request, but has not answered for 0.4 s"),
    problem: { reason: "timed_out" },
  });
  const url = api.url;
  server?.closeAllConnections();
  server?.close();
  await expect(new Api(url).json("GET", "/v1/usage")).rejects.toMatchObject({
    code: exitCodes.unavailable,
    message: expect.stringContaining("Nobody answers"),
    problem: { reason: "nobody_answers" },
  });
});

test("deletions, imports and downloads are waited for longer than any read", async () => {
  const api = await serve(async (request, response) => {
    request.resume();
    await sleep(timeoutMs * 4);
    // Headers, and long after them the body.
    response.writeHead(request.method === "POST" ? 201 : 200).flushHeaders();
    await sleep(timeoutMs * 4);
    response.end('{"removed":{},"artifact_bytes":1}');
  });
  const chunks = async () => Buffer.concat(await (await api.download("/v1/versions/v/export")).toArray()).toString();
  const [removed, imported, downloaded] = await Promise.all([
    api.json("DELETE", "/v1/datasets/d"),
    api.upload("/v1/datasets/d/import", "text/csv", "input,output\n", ""),
    chunks(),
  ]);
  const reply = { removed: {}, artifact_bytes: 1 };
  expect([removed, imported, JSON.parse(downloaded)]).toEqual([reply, reply, reply]);
});

test("an answer that breaks off, and one that is not Tutelage's, are told apart from both", async () => {
  const api = await serve((request, response) => {
    if (request.url === "/page") return response.end("<html>It works</html>");
    response.writeHead(200, { "content-length": "100" });
    return response.write('{"half":', () => setImmediate(() => response.destroy()));
  });
  await expect(api.json("GET", "/v1/usage")).rejects.toMatchObject({ problem: { reason: "connection_broken" } });
  await expect((await api.download("/v1/file")).toArray()).rejects.toMatchObject({
    code: exitCodes.unavailable,
    problem: { reason: "connection_broken" },
  });
  await expect(api.json("GET", "/page")).rejects.toMatchObject({ problem: { reason: "not_tutelage" } });
  await expect(new Api("localhost:8080").json("GET", "/")).rejects.toMatchObject({ code: exitCodes.usage });
});
