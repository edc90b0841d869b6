/** /v1/campaigns/{id}/report and seed-rows: what came of a campaign, and how. */
import { z } from "zod";
import * as schema from "./campaign-schemas.js";
import { campaignKey, campaignRef } from "./campaigns.js";
import { snake } from "./cases.js";
import { pageQuery, problems } from "./fields.js";
import { reportSchema } from "./report-schemas.js";
import { reportPage } from "./reportpage.js";
import type { Routes } from "./routes.js";

const tags = ["campaigns"];

export const campaignReportRoutes: Routes = (app, { backends, token }) => {
  const { campaigns } = backends;

  app.get(
    "/campaigns/:campaign/seed-rows",
    {
      schema: {
        tags,
        summary: "A campaign's seed rows with how each iteration's students did on them",
        params: campaignRef,
        querystring: z.strictObject(pageQuery),
        response: { 200: schema.seedRowPage, ...problems },
      },
    },
    async ({ params, query }) =>
      snake(
        await campaigns.listSeedRows({
          ...campaignKey(params.campaign),
          pageSize: query.limit,
          cursor: query.cursor,
        }),
      ),
  );

  app.get(
    "/campaigns/:campaign/report",
    {
      schema: {
        tags,
        summary: "What came of a campaign, as data",
        params: campaignRef,
        response: { 200: reportSchema, ...problems },
      },
    },
    async ({ params }) => snake(await campaigns.getReport(campaignKey(params.campaign))),
  );

  app.get(
    "/campaigns/:campaign/report.html",
    {
      schema: {
        tags,
        summary: "What came of a campaign, as one page that needs nothing else",
        params: campaignRef,
        response: { 200: { description: "The page", content: { "text/html": { schema: z.string() } } }, ...problems },
      },
    },
    async ({ params, protocol, host }, reply) => {
      const report = await campaigns.getReport(campaignKey(params.campaign));
      // Generated text is on it: nothing but the page's own style may act.
      reply.header("content-security-policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'");
      return reply
        .type("text/html; charset=utf-8")
        .send(reportPage(report, `${protocol}://${host}`, { wantsToken: token !== undefined }));
    },
  );
};
