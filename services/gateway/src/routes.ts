/** What every file of routes gets. */
import type { ArtifactStore } from "@tutelage/platform/artifacts";
import type {
  FastifyBaseLogger,
  FastifyInstance,
  RawReplyDefaultExpression,
  RawRequestDefaultExpression,
  RawServerDefault,
} from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import type { Backends } from "./backends.js";

export interface RouteContext {
  backends: Backends;
  artifacts: ArtifactStore;
  /** Aborts when the server closes: long streams end then. */
  shutdown: AbortSignal;
  maxImportBytes: number;
  /** Silence on an event stream after which a comment is sent. */
  heartbeatMs: number;
  /** What callers must show; undefined where only this machine can call. */
  token?: string | undefined;
  /** Longest that the test of a profile may take. */
  profileTestMs: number;
}

export type App = FastifyInstance<
  RawServerDefault,
  RawRequestDefaultExpression,
  RawReplyDefaultExpression,
  FastifyBaseLogger,
  ZodTypeProvider
>;

export type Routes = (app: App, context: RouteContext) => void;
