import { defineConfig } from "vitest/config";

/** One for a stack, where a test does not ask for more: each takes seconds of these two cores to start. */
const students = { TUTELAGE_STUDENTS: "1" };

export default defineConfig({
  test: {
    include: ["services/*/src/**/*.test.ts", "cli/src/**/*.test.ts", "tests/**/*.test.ts"],
    globalSetup: ["tests/support/postgres-setup.ts"],
    pool: "forks",
    // A developer's own token is not the tests'.
    env: { TUTELAGE_TOKEN: "", TUTELAGE_TOKEN_FILE: "", ...students },
    // Two cores: the student and Postgres need one.
    maxWorkers: 2,
    testTimeout: 30_000,
    hookTimeout: 60_000,
  },
});
