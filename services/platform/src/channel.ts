/** Where a client's calls go: to which replica, and which calls go to another one when that replica dies. */
import type { CompatServiceDefinition } from "nice-grpc";

const maxMessageBytes = 64 * 1024 * 1024;

/** Options of servers and clients. Batches are at most about 1,000 rows; orders of a generation run are sent whole. */
export const channelOptions = {
  "grpc.max_receive_message_length": maxMessageBytes,
  "grpc.max_send_message_length": maxMessageBytes,
  "grpc.keepalive_time_ms": 30_000,
  "grpc.keepalive_timeout_ms": 10_000,
  "grpc.initial_reconnect_backoff_ms": 200,
  "grpc.max_reconnect_backoff_ms": 2_000,
  // A name whose replicas changed their addresses is asked again this soon after one was lost.
  "grpc.dns_min_time_between_resolutions_ms": 5_000,
};

/** A target of gRPC: one host:port, whose name may stand for several replicas, or a list of IPv4 addresses. */
export function targetOf(address: string): string {
  return address.includes(",") ? `ipv4:${address}` : address;
}

/**
 * Calls that may come twice: reads, and what our contracts make repeatable (a
 * Start has its idempotency key, a Stop, Cancel or Delete of what is gone says so).
 * A call that was under way when its replica died goes to the next; the others'
 * callers learn that its outcome is unknown.
 */
const repeatable =
  /^(Get|List|Watch|Diff|Estimate|Start|Stop|Cancel|Delete|Release)[A-Z]|^(MeasureNovelty|ExportRows|HoldVersion|Check)$/;

/** Four tries, over within two seconds: long enough for another replica, not for a restart. */
const retryPolicy = {
  maxAttempts: 4,
  initialBackoff: "0.1s",
  maxBackoff: "1s",
  backoffMultiplier: 2,
  retryableStatusCodes: ["UNAVAILABLE"],
};

/** Options of a client's channel: replicas in turn, dead ones left out, what is repeatable repeated. */
export function clientOptions(definition: CompatServiceDefinition) {
  const methods = Object.values((definition as { methods: Record<string, { name: string }> }).methods);
  const service = (definition as { fullName: string }).fullName;
  const names = methods.filter(({ name }) => isRepeatable(name)).map(({ name: method }) => ({ service, method }));
  return {
    ...channelOptions,
    "grpc.service_config": JSON.stringify({
      loadBalancingConfig: [{ round_robin: {} }],
      methodConfig: names.length === 0 ? [] : [{ name: names, retryPolicy }],
    }),
  };
}

export function isRepeatable(method: string): boolean {
  return repeatable.test(method);
}
