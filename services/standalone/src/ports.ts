/** Ports that stay free for as long as a stack runs. */
import { randomInt } from "node:crypto";
import { createServer, type Server } from "node:net";

/**
 * Below the range from which systems take ports for outgoing connections
 * (32768 and up on Linux, 49152 elsewhere): a service that restarts must find
 * its port as it left it.
 */
const lowest = 20_000;
const highest = 32_000;

/** As many different free ports on loopback. */
export async function choosePorts(count: number): Promise<number[]> {
  const held: Server[] = [];
  const ports: number[] = [];
  try {
    while (ports.length < count) {
      const port = randomInt(lowest, highest);
      const server = await hold(port);
      if (server === undefined) continue;
      held.push(server);
      ports.push(port);
    }
  } finally {
    await Promise.all(held.map((server) => new Promise((done) => server.close(done))));
  }
  return ports;
}

/** Whether nobody listens on the port. */
export async function isFree(port: number): Promise<boolean> {
  const server = await hold(port);
  if (server === undefined) return false;
  await new Promise((done) => server.close(done));
  return true;
}

function hold(port: number): Promise<Server | undefined> {
  return new Promise((done) => {
    const server = createServer();
    server.once("error", () => done(undefined));
    server.listen(port, "127.0.0.1", () => done(server));
  });
}
