/** All checks of an evidence bundle, one after another. Without a server. */
import { BundleFault, BundleFile } from "@tutelage/platform/bundlefile";
import { exitCodes, Stop } from "../exit.js";
import { checkCandidates } from "./candidates.js";
import { isReviewed, readEvidence } from "./evidence.js";
import { Findings } from "./findings.js";
import { checkIterations, checkSeedRows } from "./iterations.js";
import { checkLedger } from "./ledger.js";
import { checkOutcome, checkReport } from "./report.js";
import { checkPredictions, checkTrainings } from "./students.js";
import { checkVersions } from "./versions.js";

/** What no part of a bundle can show. */
const takenAsStored = [
  "the digests of code, weights and requests (what they are of is not in the bundle)",
  "the checks' probabilities and the nearness of candidates",
  "the time of day and the seconds of steps",
];

/** Throws Stop where the file is no bundle, or not one byte for byte. */
export async function verify(path: string, sha256?: string) {
  let bundle: BundleFile | undefined;
  try {
    bundle = await BundleFile.open(path);
    if (sha256 !== undefined && bundle.sha256 !== sha256.toLowerCase()) {
      throw new BundleFault("the file", `has the SHA-256 ${bundle.sha256}, not ${sha256}`);
    }
    const found = new Findings();
    const { memberCount, sizeBytes } = bundle;
    await found.run("digests", () => `${memberCount} members, ${sizeBytes} bytes`);
    const evidence = await readEvidence(bundle);
    const notMadeAgain: string[] = [];
    await found.run("versions", () => checkVersions(evidence, found));
    await found.run("trainings", () => checkTrainings(evidence, found));
    await found.run("answers", () => checkPredictions(evidence, found));
    await found.run("iterations", () => checkIterations(evidence, found));
    await found.run("seed rows", () => checkSeedRows(evidence, found));
    await found.run("candidates", () => checkCandidates(evidence, found));
    await found.run("ledger", () => checkLedger(evidence, found));
    await found.run("outcome", () => checkOutcome(evidence, found));
    await found.run("report", () => checkReport(evidence, notMadeAgain, found));
    const reviewed = isReviewed(evidence) ? ["grades and errors, some of which people settled"] : [];
    const ofReport = notMadeAgain.length === 0 ? [] : [`of the report: ${notMadeAgain.join(", ")}`];
    return {
      bundle: path,
      size_bytes: sizeBytes,
      sha256: bundle.sha256,
      campaign: evidence.campaign.run?.id ?? "",
      checks: found.checked,
      findings: found.findings,
      taken_as_stored: [...takenAsStored, ...reviewed, ...ofReport],
    };
  } catch (error) {
    throw stopOf(error, path);
  } finally {
    await bundle?.close();
  }
}

function stopOf(error: unknown, path: string): unknown {
  if (error instanceof BundleFault) {
    return new Stop(`${path} is not what it says. ${error.message}`, exitCodes.refused, {
      reason: "bundle_not_as_it_says",
      member: error.member,
    });
  }
  const { code, syscall, message } = error as NodeJS.ErrnoException;
  if (syscall === undefined) return error;
  return new Stop(`Cannot read ${path} (${code}): ${message}.`, exitCodes.noInput);
}
