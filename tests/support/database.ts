/** A database of its own for a test file. */
import { randomBytes } from "node:crypto";
import { createDatabase } from "@tutelage/standalone/postgres";
import { inject } from "vitest";

/** Makes an empty database on the test cluster and gives its URL. */
export async function testDatabaseUrl(): Promise<string> {
  const admin = inject("postgresAdminUrl");
  const name = `test_${randomBytes(8).toString("hex")}`;
  await createDatabase(admin, name);
  return admin.replace(/\/postgres$/, `/${name}`);
}
