/** The HTTP application: plugins, guards, routes; no socket yet. */
import { randomUUID } from "node:crypto";
import swagger from "@fastify/swagger";
import swaggerUi from "@fastify/swagger-ui";
import type { Logger } from "@tutelage/platform/log";
import Fastify, { type FastifyBaseLogger, LogController } from "fastify";
import { serializerCompiler, validatorCompiler, type ZodTypeProvider } from "fastify-type-provider-zod";
import { allowanceRoutes } from "./allowance.js";
import { campaignBundleRoutes } from "./campaign-bundle.js";
import { campaignDatasetRoutes } from "./campaign-dataset.js";
import { campaignEventRoutes } from "./campaign-events.js";
import { campaignExportRoutes } from "./campaign-exports.js";
import { campaignLedgerRoutes } from "./campaign-ledger.js";
import { campaignReportRoutes } from "./campaign-reports.js";
import { campaignReviewRoutes } from "./campaign-reviews.js";
import { campaignStudentRoutes } from "./campaign-student.js";
import { campaignRoutes } from "./campaigns.js";
import { datasetRoutes } from "./datasets.js";
import { deletionRoutes } from "./deletions.js";
import { guard } from "./guard.js";
import { healthRoutes } from "./health.js";
import { importRoutes } from "./imports.js";
import { parseJsonBody } from "./jsonbody.js";
import { maintenanceRoutes } from "./maintenance.js";
import { openApi } from "./openapi.js";
import { checkContentType, handleError, handleNotFound } from "./problem.js";
import { profileTestRoutes } from "./profile-tests.js";
import { profileRoutes } from "./profiles.js";
import type { RouteContext } from "./routes.js";
import { taskRoutes } from "./tasks.js";
import { usageRoutes } from "./usage.js";
import { versionRoutes } from "./versions.js";
import { webhookRoutes } from "./webhooks.js";

const maxJsonBytes = 1024 * 1024;

const securityHeaders = {
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY",
  "referrer-policy": "no-referrer",
  "cross-origin-resource-policy": "same-origin",
  "cache-control": "no-store",
};

export async function buildApp(context: Omit<RouteContext, "shutdown"> & { log: Logger }) {
  const shutdown = new AbortController();
  const app = Fastify({
    loggerInstance: context.log as FastifyBaseLogger,
    // One line a request, ours, below.
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit: maxJsonBytes,
    forceCloseConnections: "idle",
    // A body must be there within half an hour: the largest import on a slow disk, not a socket held for ever.
    requestTimeout: 1_800_000,
    return503OnClosing: false,
    frameworkErrors: handleError,
    genReqId: ({ headers }) => {
      const given = headers["x-request-id"];
      return typeof given === "string" && /^[\w.-]{1,128}$/.test(given) ? given : randomUUID();
    },
  }).withTypeProvider<ZodTypeProvider>();

  app.addHook("onRequest", async (request, reply) => {
    reply.headers(securityHeaders).header("x-request-id", request.id);
    // Swagger's pages need their own scripts; everything else is data.
    if (!request.url.startsWith("/docs")) reply.header("content-security-policy", "default-src 'none'");
  });
  app.addHook("onRequest", guard(context.token));
  app.addHook("onResponse", async (request, reply) => {
    const { method, url, routeOptions } = request;
    context.log.info(
      {
        method,
        route: routeOptions.url ?? url,
        status: reply.statusCode,
        ms: Math.round(reply.elapsedTime),
        requestId: request.id,
      },
      "request",
    );
  });
  app.addHook("preClose", async () => shutdown.abort());
  app.setErrorHandler(handleError);
  app.setNotFoundHandler(handleNotFound);
  app.removeContentTypeParser("text/plain");

  await app.register(swagger, openApi({ needsToken: context.token !== undefined }));
  await app.register(swaggerUi, { routePrefix: "/docs", staticCSP: true });

  // The compilers are set in child scopes only: Swagger's own routes have schemas that are not zod's.
  await app.register(async (scope) => {
    scope.setValidatorCompiler(validatorCompiler);
    scope.setSerializerCompiler(serializerCompiler);
    scope.addHook("onRequest", checkContentType);
    scope.removeContentTypeParser("application/json");
    scope.addContentTypeParser("application/json", { parseAs: "string" }, (_request, text, done) => {
      try {
        done(null, parseJsonBody(text as string));
      } catch (error) {
        done(error as Error);
      }
    });
    // A file is not parsed here: the route reads it as it comes.
    scope.addContentTypeParser(["application/x-ndjson", "text/csv"], (_request, payload, done) => done(null, payload));
    const typed = scope.withTypeProvider<ZodTypeProvider>();
    healthRoutes(typed, { ...context, shutdown: shutdown.signal });
    await typed.register(
      async (versioned) => {
        const v1 = versioned.withTypeProvider<ZodTypeProvider>();
        for (const routes of [
          datasetRoutes,
          importRoutes,
          versionRoutes,
          profileRoutes,
          taskRoutes,
          profileTestRoutes,
          campaignRoutes,
          campaignBundleRoutes,
          campaignDatasetRoutes,
          campaignEventRoutes,
          campaignLedgerRoutes,
          campaignReportRoutes,
          campaignReviewRoutes,
          campaignStudentRoutes,
          deletionRoutes,
          usageRoutes,
          maintenanceRoutes,
          allowanceRoutes,
          campaignExportRoutes,
          webhookRoutes,
        ]) {
          routes(v1, { ...context, shutdown: shutdown.signal });
        }
      },
      { prefix: "/v1" },
    );
  });
  await app.ready();
  return app;
}
