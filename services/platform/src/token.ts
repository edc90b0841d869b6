/** The shared token: who knows it may call, over HTTP and between services. */
import { createHash, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";
import { TutelageError } from "./errors.js";

/** A token that can be guessed guards nothing. */
const leastCharacters = 16;

/**
 * The token of this process, from TUTELAGE_TOKEN or the file that
 * TUTELAGE_TOKEN_FILE names; undefined when neither is set. Read from the
 * environment where it is used, so that no server or client can be made without it.
 * Throws failed_precondition that names the variable.
 */
export function sharedToken(environment: NodeJS.ProcessEnv = process.env): string | undefined {
  const { TUTELAGE_TOKEN: given = "", TUTELAGE_TOKEN_FILE: path = "" } = environment;
  if (given !== "" && path !== "") throw wrong("TUTELAGE_TOKEN and TUTELAGE_TOKEN_FILE are both set; set one of them.");
  if (path !== "") return checked("TUTELAGE_TOKEN_FILE", contentOf(path));
  return given === "" ? undefined : checked("TUTELAGE_TOKEN", given);
}

/** Whether an Authorization header carries the token, in a time that tells nothing about it. */
export function authorizes(header: string | undefined, token: string): boolean {
  const [, given = ""] = /^Bearer +(\S+)$/i.exec(header ?? "") ?? [];
  return timingSafeEqual(digest(given), digest(token));
}

/** Whether a browser's Authorization header (Basic, RFC 7617) has the token as its password, under whatever name. */
export function authorizesBrowser(header: string | undefined, token: string): boolean {
  const [, given = ""] = /^Basic +([A-Za-z0-9+/=]+)$/i.exec(header ?? "") ?? [];
  const credentials = Buffer.from(given, "base64").toString("utf8");
  const password = credentials.slice(credentials.indexOf(":") + 1);
  return timingSafeEqual(digest(password), digest(token)) && credentials.includes(":");
}

/** What a caller sends. */
export function authorization(token: string): string {
  return `Bearer ${token}`;
}

function contentOf(path: string): string {
  try {
    return readFileSync(path, "utf8").trim();
  } catch (error) {
    throw wrong(`TUTELAGE_TOKEN_FILE: ${path} cannot be read (${(error as NodeJS.ErrnoException).code}).`);
  }
}

function checked(variable: string, token: string): string {
  if (token.length >= leastCharacters && /^[\x21-\x7e]+$/.test(token)) return token;
  throw wrong(
    `${variable} must hold at least ${leastCharacters} visible ASCII characters without spaces; "openssl rand -hex 32" makes one.`,
  );
}

function wrong(message: string): TutelageError {
  return new TutelageError("failed_precondition", message, { reason: "token_invalid" });
}

function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}
