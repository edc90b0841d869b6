import { afterEach, beforeEach, expect, test } from "vitest";
import { startTeacherServer, type TeacherServer } from "../support/teacher-server.js";
import { until } from "../support/waiting.js";
import { TeacherAccount } from "./account.js";

let server: TeacherServer;
let account: TeacherAccount;
beforeEach(async () => {
  server = await startTeacherServer();
  account = new TeacherAccount(server, (call) => !call.prompt.includes("faulty"));
});
afterEach(() => server.stop());

/** A call as a replica of the teacher service makes it. */
async function ask(replica: string, key: string, text = "c001 train 1"): Promise<void> {
  await fetch(`${server.url}/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${replica}`, "idempotency-key": key },
    body: JSON.stringify({ messages: [{ role: "user", content: text }] }),
  }).then((response) => response.text());
}

test("a call that comes again although the model had worked on it is paid twice", async () => {
  await ask("teacher-1", "a");
  await ask("teacher-1", "b");
  expect(account.repaidCount).toBe(0);
  await ask("teacher-2", "a");
  expect(account.repaidCount).toBe(1);
  // What the weather let fail before was not paid.
  await ask("teacher-2", "c", "c001 train faulty");
  await ask("teacher-2", "c", "c001 train faulty");
  expect(account.repaidCount).toBe(1);
});

test("in flight is what is open, or answered too lately to be stored, of the replica that died", async () => {
  await ask("teacher-1", "a");
  const later = Date.now() + 1;
  await until(() => Date.now() > later);
  server.options = { delayMs: 100 };
  const open = [ask("teacher-1", "b"), ask("teacher-2", "c")];
  await until(() => server.calls.length === 3);
  account.broke("teacher-1", Date.now());
  expect(account.inFlightCount).toBe(1);
  // Broken again, the same call counts once.
  account.broke(undefined, Date.now());
  expect(account.inFlightCount).toBe(2);
  account.broke(undefined, 0);
  expect(account.inFlightCount).toBe(3);
  await Promise.all(open);
});

test("a campaign is billed for each call that was answered, by what it used", async () => {
  server.options = { behave: () => ({ kind: "reply", text: "the same" }) };
  await ask("teacher-1", "a");
  const once = account.billedMicroUsd().get("c001") ?? 0;
  expect(once).toBeGreaterThan(0);
  await ask("teacher-1", "a");
  await ask("teacher-1", "b", "c002 train 1");
  server.options = { behave: () => ({ kind: "status", status: 429 }) };
  await ask("teacher-1", "c");
  expect(account.billedMicroUsd()).toEqual(
    new Map([
      ["c001", 2 * once],
      ["c002", once],
    ]),
  );
});
