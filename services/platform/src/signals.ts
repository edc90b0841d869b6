/**
 * Wakes those who wait for runs to change. One LISTEN connection a service;
 * a lost notification costs a poll interval, never correctness.
 */
import { EventEmitter, once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import type { Database } from "./database.js";
import type { Logger } from "./log.js";

/** Wakes when the run it subscribed to changes. */
export interface Subscription {
  /** Waits for a change, at most timeoutMs, or until the signal aborts. True when a change woke it. */
  next(timeoutMs: number, signal: AbortSignal): Promise<boolean>;
  close(): void;
}

export class RunSignals {
  private readonly emitter = new EventEmitter().setMaxListeners(0);
  private client: pg.Client | undefined;
  private closed = false;

  constructor(
    private readonly database: Database,
    private readonly log: Logger,
  ) {}

  /** Listens until close(); reconnects when the connection is lost. */
  async listen(): Promise<void> {
    while (!this.closed) {
      const client = new pg.Client({
        connectionString: this.database.url,
        application_name: "tutelage-signals",
        connectionTimeoutMillis: 5_000,
        keepAlive: true,
        keepAliveInitialDelayMillis: 10_000,
      });
      this.client = client;
      const ended = once(client, "end").catch(() => {});
      client.on("error", () => {});
      client.on("notification", ({ payload }) => {
        const [schema, runId] = (payload ?? "").split(":");
        if (schema !== this.database.schema || runId === undefined) return;
        this.emitter.emit(runId);
        this.emitter.emit("any");
      });
      try {
        await client.connect();
        await client.query("listen tutelage_runs");
        // What changed before we listened was not heard: everybody looks once.
        for (const name of this.emitter.eventNames()) this.emitter.emit(name);
        if (this.closed) await client.end();
        await ended;
      } catch (error) {
        if (!this.closed) this.log.warn({ err: error }, "cannot listen for run changes; polling meanwhile");
        await client.end().catch(() => {});
      }
      this.client = undefined;
      if (!this.closed) await sleep(500);
    }
  }

  async close(): Promise<void> {
    this.closed = true;
    await this.client?.end().catch(() => {});
  }

  /** A change that comes between two calls of next() is remembered. */
  subscribe(runId: string): Subscription {
    let pending = false;
    let wake: (() => void) | undefined;
    const onChange = () => {
      pending = true;
      wake?.();
    };
    this.emitter.on(runId, onChange);
    return {
      next: (timeoutMs, signal) =>
        new Promise((resolve) => {
          const done = () => {
            clearTimeout(timer);
            signal.removeEventListener("abort", done);
            wake = undefined;
            const woken = pending;
            pending = false;
            resolve(woken);
          };
          const timer = setTimeout(done, timeoutMs);
          signal.addEventListener("abort", done, { once: true });
          wake = done;
          if (pending || signal.aborted) done();
        }),
      close: () => this.emitter.off(runId, onChange),
    };
  }
}
