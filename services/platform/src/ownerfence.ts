/**
 * Runs may belong to another run, in another service's database: a campaign's.
 * Its holder names the claim under which it works, and whoever had the owner
 * before, hung, and comes back is refused, as by the owner's own row.
 */
import type { Owner } from "@tutelage/proto/run/v1/owner";
import { sql } from "drizzle-orm";
import type { Transaction } from "./database.js";
import { invalidField, TutelageError } from "./errors.js";
import { isUuid } from "./runs.js";

/** How the idempotency keys of an owner's runs begin: so they are found, also those that no holder had time to note. */
export function keyPrefixOf({ id }: Owner): string {
  return `${id}/`;
}

/**
 * What refuses, in its transaction, to start or resume a run for an owner that
 * somebody else holds by now; nothing where there is no owner. Throws
 * invalid_argument.
 * @param idempotencyKey of a run that is started
 */
export function heldBy(
  projectId: string,
  owner: Owner | undefined,
  idempotencyKey?: string,
): (transaction: Transaction) => Promise<void> {
  if (owner === undefined) return async () => {};
  const checked = requireOwner(owner);
  const prefix = keyPrefixOf(checked);
  if (idempotencyKey !== undefined && !idempotencyKey.startsWith(prefix)) {
    throw invalidField("idempotency_key", `must begin with "${prefix}", as that run is to own this one.`);
  }
  return (transaction) => requireHeld(transaction, projectId, checked);
}

/** Throws invalid_argument. */
export function requireOwner(owner: Owner | undefined): Owner {
  if (owner !== undefined && isUuid(owner.id) && Number.isSafeInteger(owner.fence) && owner.fence >= 0) return owner;
  throw invalidField("owner", "must name the owning run by its id, and the number of a claim of it.");
}

/**
 * Notes the claim, in the transaction of what is done under it: a stop that
 * comes meanwhile waits for that, and finds it. Throws aborted, fence_outdated.
 * @param stops nothing else is heard under this claim any more
 */
export async function requireHeld(
  transaction: Transaction,
  projectId: string,
  { id, fence }: Owner,
  stops = false,
): Promise<void> {
  const { rowCount } = await transaction.execute(sql`
    insert into owner_fences as known (project_id, owner_id, fence, stopped)
    values (${projectId}, ${id}::uuid, ${fence}, ${stops})
    on conflict (project_id, owner_id) do update set fence = excluded.fence, stopped = excluded.stopped
    where known.fence < excluded.fence or (known.fence = excluded.fence and (excluded.stopped or not known.stopped))`);
  if (rowCount === 0) {
    throw new TutelageError(
      "aborted",
      `Run ${id} was stopped, or is held by another worker; what this one asks for it is refused.`,
      { reason: "fence_outdated" },
    );
  }
}
