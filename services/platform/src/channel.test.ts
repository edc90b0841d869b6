import {
  EvaluationServiceDefinition,
  type EvaluationServiceImplementation,
} from "@tutelage/proto/evaluation/v1/evaluation";
import { afterEach, expect, test } from "vitest";
import { startProxy, type TcpProxy } from "../../../tests/support/proxy.js";
import { until } from "../../../tests/support/waiting.js";
import { isRepeatable } from "./channel.js";
import { parseConfig, replicas } from "./config.js";
import { connect, serve, served } from "./grpc.js";
import { createLog } from "./log.js";

interface Replica {
  address: string;
  proxy: TcpProxy;
  /** Calls that came. */
  calls: number;
  /** While it is set, calls get no answer. */
  hangs: boolean;
}

const closers: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

/** A replica behind a proxy, so that its connections can break as those of a killed process do. */
async function startReplica(): Promise<Replica> {
  const answer = async () => {
    replica.calls += 1;
    while (replica.hangs) await new Promise((later) => setTimeout(later, 20));
    return {};
  };
  const methods = Object.keys(EvaluationServiceDefinition.methods);
  const implementation = Object.fromEntries(methods.map((name) => [name, answer]));
  const server = await serve({
    listen: "127.0.0.1:0",
    services: [served(EvaluationServiceDefinition, implementation as unknown as EvaluationServiceImplementation)],
    log: createLog("test", "fatal"),
  });
  const proxy = await startProxy(Number(server.address.split(":")[1]));
  const replica: Replica = { address: `127.0.0.1:${proxy.port}`, proxy, calls: 0, hangs: false };
  closers.push(
    () => server.stop(0),
    () => proxy.stop(),
    () => {
      replica.hangs = false;
    },
  );
  return replica;
}

async function startTwo() {
  const [first, second] = [await startReplica(), await startReplica()];
  const client = connect(EvaluationServiceDefinition, `${first.address},${second.address}`);
  closers.push(() => client.close());
  // Until both are connected.
  await until(async () => {
    await client.getEvaluationRun({});
    return first.calls > 0 && second.calls > 0;
  });
  return { first, second, client };
}

test("calls take turns between the replicas of a service", async () => {
  const { first, second, client } = await startTwo();
  const before = [first.calls, second.calls];
  for (let call = 0; call < 10; call += 1) await client.getEvaluationRun({});
  expect([first.calls - (before[0] ?? 0), second.calls - (before[1] ?? 0)]).toEqual([5, 5]);
});

test("a replica that is gone fails no call that another one can answer, whatever the call", async () => {
  const { first, second, client } = await startTwo();
  await first.proxy.stop();
  await until(() => first.proxy.open === 0);
  const before = second.calls;
  for (let call = 0; call < 20; call += 1) await client.getEvaluationRun({});
  for (let call = 0; call < 20; call += 1) await client.predict({});
  expect(second.calls - before).toBe(40);
});

test("a read that was under way when its replica died is answered by another one", async () => {
  const { first, second, client } = await startTwo();
  first.hangs = true;
  const before = second.calls;
  const held = first.calls;
  const calls = [client.getEvaluationRun({}), client.getEvaluationRun({})];
  await until(() => first.calls > held);
  first.proxy.cut();
  await Promise.all(calls);
  expect(second.calls - before).toBe(2);
});

test("what may not come twice fails by name instead of being repeated", async () => {
  const { first, second, client } = await startTwo();
  first.hangs = true;
  second.hangs = true;
  const before = first.calls + second.calls;
  const call = client.predict({});
  await until(() => first.calls + second.calls > before);
  const failed = expect(call).rejects.toMatchObject({ code: "unavailable" });
  first.proxy.cut();
  second.proxy.cut();
  await failed;
  expect(first.calls + second.calls - before).toBe(1);
});

test("what a call's name promises decides whether it may come twice", () => {
  for (const name of ["GetRow", "ListRows", "WatchCampaign", "StartTrainingRun", "CancelCampaign", "HoldVersion"])
    expect(isRepeatable(name), name).toBe(true);
  for (const name of ["Train", "Predict", "HoldSlot", "CreateDataset", "PutTask", "ImportRows", "UpdateCampaign"])
    expect(isRepeatable(name), name).toBe(false);
});

test("a service is named by one address or by several, and a wrong one is refused with the form", () => {
  const shape = { TRAINING_ADDRESS: replicas };
  for (const good of ["training:50052", "127.0.0.1:1", "[::1]:50052", "10.0.0.1:50052,10.0.0.2:50052"])
    expect(parseConfig(shape, { TRAINING_ADDRESS: good })).toEqual({ config: { TRAINING_ADDRESS: good } });
  for (const bad of ["training", "a:1,b:2", "10.0.0.1:1,", "10.0.0.1:1;10.0.0.2:1"])
    expect(parseConfig(shape, { TRAINING_ADDRESS: bad })).toMatchObject({
      problems: [expect.stringMatching(/TRAINING_ADDRESS .*IPv4:port.*commas/)],
    });
});
