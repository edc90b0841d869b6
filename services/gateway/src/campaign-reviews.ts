/** /v1/campaigns/{id}/reviews: seed rows in doubt, and what somebody decides of them. */
import { Disputes, ReviewDecision, ReviewStatus } from "@tutelage/proto/campaigns/v1/campaigns";
import { z } from "zod";
import { campaignKey, campaignRef } from "./campaigns.js";
import { snake } from "./cases.js";
import { enumName, pageQuery, problems } from "./fields.js";
import * as schema from "./review-schemas.js";
import type { Routes } from "./routes.js";

const tags = ["campaigns"];

const decisionBody = z.strictObject({
  decision: enumName(ReviewDecision).describe("The row stands as it is, gets another output, or is left out"),
  output: z.string().default("").describe("The new output, to relabel"),
  reading: enumName(Disputes)
    .default(Disputes.UNSPECIFIED)
    .describe("Which reading of the student's answers counts, strict or lenient; to accept a dispute"),
  decided_by: z.string().max(200).default("").describe("Who decides, for people"),
});

export const campaignReviewRoutes: Routes = (app, { backends }) => {
  const { campaigns } = backends;

  app.get(
    "/campaigns/:campaign/reviews",
    {
      schema: {
        tags,
        summary: "Seed rows that somebody should look at, in the order in which they came into doubt",
        params: campaignRef,
        querystring: z.strictObject({
          ...pageQuery,
          status: enumName(ReviewStatus).optional().describe("Only these"),
        }),
        response: { 200: schema.reviewPage, ...problems },
      },
    },
    async ({ params, query }) =>
      snake(
        await campaigns.listReviews({
          ...campaignKey(params.campaign),
          status: query.status ?? ReviewStatus.UNSPECIFIED,
          pageSize: query.limit,
          cursor: query.cursor,
        }),
      ),
  );

  app.post(
    "/campaigns/:campaign/reviews/:row",
    {
      schema: {
        tags,
        summary: "Settle a seed row that is in doubt",
        description:
          "The campaign takes it up when it next orders rows; until then it may be decided otherwise, and afterwards not " +
          "(409, review_acted_on). The same decision again changes nothing. A campaign that rests until its reviews are " +
          "decided goes on after the last.",
        params: campaignRef.extend({ row: z.string().describe("Id of the seed row") }),
        body: decisionBody,
        response: { 200: schema.reviewSchema, ...problems },
      },
    },
    async ({ params, body }) => {
      const { decision, output, reading, decided_by: decidedBy } = body;
      const asked = { ...campaignKey(params.campaign), seedRowId: params.row, decision, output, reading, decidedBy };
      return snake(await campaigns.decideReview(asked));
    },
  );
};
