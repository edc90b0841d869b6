/** Asks a gRPC server whether it serves (grpc.health.v1), over a connection that is kept. */
import { HealthDefinition } from "nice-grpc-server-health";
import { connect } from "./grpc.js";

/** ServingStatus.SERVING; the package does not export its enum. */
const serving = 1;

export type Health = "serving" | "not_serving" | "no_answer";

export interface HealthProbe {
  readonly address: string;
  check(deadlineMs?: number): Promise<Health>;
  close(): void;
}

export function healthProbe(address: string): HealthProbe {
  const client = connect(HealthDefinition, address);
  return {
    address,
    check: async (deadlineMs = 2_000) => {
      try {
        const { status } = await client.check({ service: "" }, { deadline: deadlineMs });
        return status === serving ? "serving" : "not_serving";
      } catch {
        return "no_answer";
      }
    },
    close: () => client.close(),
  };
}
