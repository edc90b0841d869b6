/** Checks dataset versions: every row's id, every version's digest, every synthetic row's family. */
import { createHash, type Hash } from "node:crypto";
import { rowFromLine } from "@tutelage/platform/rowfile";
import { identify, VersionDigest } from "@tutelage/platform/rowidentity";
import { RowOrigin, Split } from "@tutelage/proto/task/v1/task";
import type { Evidence, VersionRows } from "./evidence.js";
import type { Findings } from "./findings.js";

/** What a version's rows come to so far: one that grows from it goes on from here. */
interface Tally {
  digest: VersionDigest;
  artifact: Hash;
  rows: number;
  splits: { train: number; dev: number; test: number };
}

const emptyTally = (): Tally => ({
  digest: new VersionDigest(),
  artifact: createHash("sha256"),
  rows: 0,
  splits: { train: 0, dev: 0, test: 0 },
});

/** Reads the rows into the evidence on the way. */
export async function checkVersions(evidence: Evidence, found: Findings): Promise<string> {
  const lines = evidence.bundle.lines("rows");
  const tallies = new Map<VersionRows, Tally>();
  for (const one of evidence.versions.values()) {
    const before = one.parent === undefined ? undefined : tallies.get(one.parent);
    const tally =
      before === undefined
        ? emptyTally()
        : {
            digest: before.digest.copy(),
            artifact: before.artifact.copy(),
            rows: before.rows,
            splits: { ...before.splits },
          };
    const { version } = one;
    while (tally.rows < version.rowCount) {
      const next = await lines.next();
      if (next.done === true) {
        found.differs("rows", `end before version ${version.id} has its ${version.rowCount} rows`);
        return counted(evidence);
      }
      const { text, member, line } = next.value;
      const row = rowFromLine(text);
      const again = identify(row);
      if (again.line !== `${text}\n`) {
        found.differs(
          member,
          `line ${line}: row ${row.id} is not what its id says; by its content it is ${again.row.id}`,
        );
      }
      tally.digest.add(row.id);
      tally.artifact.update(`${text}\n`);
      tally.rows += 1;
      if (row.split === Split.TRAIN) tally.splits.train += 1;
      if (row.split === Split.DEV) tally.splits.dev += 1;
      if (row.split === Split.TEST) tally.splits.test += 1;
      one.own.push(row);
      evidence.rows.set(row.id, row);
    }
    tallies.set(one, tally);
    const what = `version ${version.id}`;
    found.same("versions", `${what}.digest`, version.digest, tally.digest.copy().finish());
    found.same("versions", `${what}.artifact_sha256`, version.artifactSha256, tally.artifact.copy().digest("hex"));
    found.same("versions", `${what}.splits`, version.splits, tally.splits);
    checkFamilies(one, found);
  }
  const rest = await lines.next();
  if (rest.done !== true) found.differs(rest.value.member, `line ${rest.value.line}: belongs to no version`);
  const seed = evidence.campaign.request?.datasetVersionId ?? "";
  if (!evidence.versions.has(seed)) found.differs("versions", `the campaign's own rows, version ${seed}, are missing`);
  return counted(evidence);
}

function counted({ versions, rows }: Evidence): string {
  return `${versions.size} versions, ${rows.size} rows`;
}

/** A synthetic row grew from a seed row, and from a row that was shown to the teacher, of the same version. */
function checkFamilies(one: VersionRows, found: Findings): void {
  const inVersion = new Map<string, RowOrigin>();
  for (let version: VersionRows | undefined = one; version !== undefined; version = version.parent) {
    for (const { id, origin } of version.own) inVersion.set(id, origin);
  }
  for (const { id, origin, rootRowId, parentRowId } of one.own) {
    if (origin !== RowOrigin.SYNTHETIC) continue;
    if (inVersion.get(rootRowId) !== RowOrigin.SEED) {
      found.differs("rows", `row ${id}: its root ${rootRowId} is no seed row of version ${one.version.id}`);
    }
    if (!inVersion.has(parentRowId)) {
      found.differs("rows", `row ${id}: its parent ${parentRowId} is no row of version ${one.version.id}`);
    }
  }
}
