import { StartCampaignRequest } from "@tutelage/proto/campaigns/v1/campaigns";
import { Row, TaskKind } from "@tutelage/proto/task/v1/task";
import { expect, test } from "vitest";
import type { Services } from "./clients.js";
import { mostCharacters, mostRows, resolveRequest } from "./request.js";

/** Services whose version has so many rows of so many characters, a thousand a page, without end. */
function servicesWith(rowCount: number, characters: number) {
  let pages = 0;
  const input = "x".repeat(characters);
  const services = {
    training: { listStudentProfiles: async () => ({ profiles: [{ name: "s", recipe: {} }] }) },
    teacher: { listTeacherProfiles: async () => ({ profiles: [{ name: "t" }] }) },
    datasets: {
      getVersion: async () => ({ id: "v", datasetId: "d", rowCount }),
      listRows: async () => {
        pages += 1;
        return { rows: Array.from({ length: 1_000 }, () => Row.fromPartial({ input })), nextCursor: "more" };
      },
    },
  };
  return { services: services as unknown as Services, pagesRead: () => pages };
}

const request = StartCampaignRequest.fromPartial({
  projectId: "p",
  datasetVersionId: "v",
  studentProfile: "s",
  teacherProfile: "t",
  task: { kind: TaskKind.TEXT, promptTemplate: "{input}" },
});
const tooLarge = {
  code: "invalid_argument",
  reason: "version_too_large",
  fields: [{ field: "dataset_version_id" }],
  message: expect.stringContaining(`at most ${mostRows} rows with ${mostCharacters} characters`),
};

test("a version with more rows than a campaign can hold is refused before any is read", async () => {
  const { services, pagesRead } = servicesWith(mostRows + 1, 1);
  await expect(resolveRequest(services, request, new AbortController().signal)).rejects.toMatchObject(tooLarge);
  expect(pagesRead()).toBe(0);
});

test("one with more text is refused as soon as that is seen", async () => {
  const { services, pagesRead } = servicesWith(mostRows, 100_000);
  await expect(resolveRequest(services, request, new AbortController().signal)).rejects.toMatchObject(tooLarge);
  expect(pagesRead()).toBe(3);
});
