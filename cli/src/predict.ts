/** tutelage predict: a campaign's student is asked. */
import type { Command } from "commander";
import type { CommandContext } from "./context.js";
import { exitCodes, Stop } from "./exit.js";
import { percent, table } from "./show.js";

/** The server takes this many inputs at once. */
const mostInputs = 256;

interface Prediction {
  text: string;
  probability: number;
}

export function addPredictCommand(program: Command, { api, print }: CommandContext): void {
  program
    .command("predict <id> [inputs...]")
    .description("ask a campaign's student; without inputs the lines of standard input are asked")
    .option("--conversations", 'each input is a conversation: [{"role": "user", "content": "…"}]', false)
    .action(async (id: string, inputs: string[], options: { conversations: boolean }) => {
      const asked = inputs.length > 0 ? inputs : await standardInputLines();
      const questions = options.conversations ? asked.map(conversationOf) : asked;
      const predictions: Prediction[] = [];
      for (let first = 0; first < asked.length; first += mostInputs) {
        const part = questions.slice(first, first + mostInputs);
        const reply = await api().json<{ predictions: Prediction[] }>(
          "POST",
          `/v1/campaigns/${encodeURIComponent(id)}/predict`,
          options.conversations ? { conversations: part } : { inputs: part },
        );
        predictions.push(...reply.predictions);
      }
      print(predictions, () =>
        table(
          ["answer", "sure", "input"],
          predictions.map((one, index) => [one.text, percent(one.probability), asked[index] ?? ""]),
        ),
      );
    });
}

function conversationOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new Stop(`${text.slice(0, 80)} is not JSON; write [{"role": "user", "content": "…"}].`, exitCodes.usage);
  }
}

async function standardInputLines(): Promise<string[]> {
  const chunks: Buffer[] = [];
  for await (const chunk of process.stdin) chunks.push(chunk as Buffer);
  const lines = Buffer.concat(chunks).toString("utf8").split("\n");
  return lines.filter((line) => line.trim() !== "");
}
