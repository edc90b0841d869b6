import { DrizzleQueryError } from "drizzle-orm";
import { expect, test } from "vitest";
import { withoutValues } from "./log.js";

test("an error of a query is logged without what the query was given", () => {
  const cause = Object.assign(new Error('duplicate key value violates unique constraint "calls_pkey"'), {
    code: "23505",
    detail: "Key (prompt)=(canary) already exists.",
    where: "COPY calls, line 1: canary",
  });
  const logged = JSON.stringify(withoutValues(new DrizzleQueryError("insert into calls", ["canary"], cause)));
  expect(logged).toContain("duplicate key");
  expect(logged).toContain("23505");
  expect(logged).not.toContain("canary");
});
