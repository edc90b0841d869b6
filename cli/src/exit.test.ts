import { expect, test } from "vitest";
import { refusal } from "./api.js";
import { exitCodes, problemOf, Stop } from "./exit.js";

test("a refusal of the command's own is a problem document, as the server's are", () => {
  expect(problemOf(new Stop("There is no file x.yaml.", exitCodes.noInput))).toEqual({
    type: "urn:tutelage:problem:file_error",
    title: "A file cannot be read or written",
    detail: "There is no file x.yaml.",
    reason: "file_error",
    errors: [],
  });
});

test("the server's document is given on as it came, with what it says beside the standard", async () => {
  const sent = {
    type: "urn:tutelage:problem:rows_rejected",
    title: "Nothing was imported",
    status: 422,
    detail: "1 bad row(s).",
    reason: "rows_rejected",
    errors: [{ field: "line 2", message: "is empty" }],
    rejected_rows: 1,
    request_id: "r",
  };
  const stop = await refusal({ status: 422, json: async () => sent });
  expect(problemOf(stop)).toEqual(sent);
  expect(stop.message).toBe("1 bad row(s).\n  line 2: is empty");
  // A proxy that answers for a server says no more than its status.
  const page = await refusal({ status: 502, json: async () => JSON.parse("<html>") });
  expect(problemOf(page)).toMatchObject({ status: 502, reason: "refused", detail: "The server answered 502." });
});
