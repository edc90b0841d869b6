/** tutelage budget: what the project may use in a month. */
import type { Command } from "commander";
import type { CommandContext } from "./context.js";
import { money, table } from "./show.js";
import { wholeNumber } from "./wholenumber.js";

interface MonthBudget {
  month: string;
  lines: { name: string; used: number; cap: number }[];
}

/** Adds `budget`. */
export function addBudgetCommand(program: Command, { api, print }: CommandContext): void {
  program
    .command("budget")
    .description("what the project may use this month, and has used; with options, change its caps (0 for none)")
    .option("--teacher-calls <count>", "most teacher calls in a month", wholeNumber)
    .option("--teacher-tokens <count>", "most tokens, sent and received", wholeNumber)
    .option("--cost-micro-usd <amount>", "most money for teachers", wholeNumber)
    .option("--training-seconds <seconds>", "most seconds of training", wholeNumber)
    .action(
      async (given: Partial<Record<"teacherCalls" | "teacherTokens" | "costMicroUsd" | "trainingSeconds", number>>) => {
        const caps = {
          teacher_calls: given.teacherCalls,
          teacher_tokens: given.teacherTokens,
          cost_micro_usd: given.costMicroUsd,
          training_seconds: given.trainingSeconds,
        };
        const changes = Object.values(caps).some((cap) => cap !== undefined);
        const budget = changes
          ? await api().json<MonthBudget>("PATCH", "/v1/allowance", caps)
          : await api().json<MonthBudget>("GET", "/v1/allowance");
        print(budget, () => budgetTable(budget));
      },
    );
}

function budgetTable({ month, lines }: MonthBudget): string {
  const amount = (name: string, value: number) =>
    name === "cost_micro_usd" ? money(value) : Math.ceil(value).toLocaleString("en-US");
  return table(
    [month, "used", "cap"],
    lines.map(({ name, used, cap }) => [name, amount(name, used), cap === 0 ? "none" : amount(name, cap)]),
  );
}
