/** The one file of a multipart/form-data body, read as it comes: what an HTML form or `curl -F file=@…` sends. */
import type { IncomingHttpHeaders } from "node:http";
import type { Readable } from "node:stream";
import { Busboy } from "@fastify/busboy";
import { invalidField, TutelageError } from "@tutelage/platform/errors";

export interface UploadedFile {
  /** Content type of the part. */
  contentType: string;
  /** Name that the client gave the file; may be empty. */
  name: string;
  /** Its bytes. They end only when the whole body has ended well, with nothing else in it. */
  chunks: AsyncIterable<Buffer>;
  /** Lets the rest of the body come and drops it; call it when nobody reads `chunks` to their end. */
  drain(): void;
}

export function isMultipart(contentType: string | undefined): boolean {
  return /^multipart\/form-data\s*(;|$)/i.test(contentType ?? "");
}

/**
 * Resolves when the file begins. Throws invalid_argument when the body is not
 * multipart, holds no file, or holds something else beside it; what comes
 * after the file is reported by `chunks`.
 */
export async function uploadedFile(headers: IncomingHttpHeaders, body: Readable): Promise<UploadedFile> {
  const parser = openParser(headers);
  // Not destroyed, and no pipeline, which would: that closes the socket before the client has its answer.
  const drain = () => {
    body.unpipe(parser);
    body.resume();
  };
  let current: Readable | undefined;
  const { promise: whole, resolve: end, reject } = withResolvers<void>();
  const fail = (error: unknown) => {
    drain();
    reject(error instanceof TutelageError ? error : malformed(error));
    current?.destroy();
  };
  whole.catch(() => {});

  async function* bytesOf(file: Readable): AsyncGenerator<Buffer> {
    let isOver = false;
    try {
      for await (const chunk of file) yield chunk;
      isOver = true;
    } catch {
      // A file that breaks off says less of why than the body does.
      isOver = true;
    } finally {
      if (!isOver) drain();
    }
    await whole;
  }

  const begun = new Promise<UploadedFile>((resolve) => {
    parser.on("file", (field, file, name, _encoding, contentType) => {
      file.on("error", () => {});
      if (current !== undefined) {
        file.resume();
        fail(invalidField(field, "is a second file; send one file a request, more of them with append=true."));
        return;
      }
      current = file;
      resolve({ contentType, name: name ?? "", chunks: bytesOf(file), drain: () => file.resume() });
    });
  });
  parser.on("field", (name) =>
    fail(invalidField(name, "is a form field; send one file and nothing else, the options in the query.")),
  );
  parser.once("finish", end);
  parser.on("error", fail);
  body.once("error", fail);
  body.once("close", () => {
    if (!body.readableEnded) fail(new Error("it broke off"));
  });
  body.pipe(parser);

  const nothing = whole.then(() => {
    throw invalidField("file", 'is missing; send the file as a part with a file name, e.g. curl -F "file=@rows.csv".');
  });
  return await Promise.race([begun, nothing]);
}

/** A promise that is settled from outside; Node 20 has no Promise.withResolvers. */
function withResolvers<T>() {
  let resolve: (value: T) => void = () => {};
  let reject: (error: unknown) => void = () => {};
  const promise = new Promise<T>((onResolve, onReject) => {
    resolve = onResolve;
    reject = onReject;
  });
  return { promise, resolve, reject };
}

function openParser(headers: IncomingHttpHeaders) {
  try {
    return new Busboy({ headers: { ...headers, "content-type": headers["content-type"] ?? "" } });
  } catch (error) {
    throw malformed(error);
  }
}

function malformed(cause: unknown): TutelageError {
  const why = cause instanceof Error ? cause.message : String(cause);
  return new TutelageError("invalid_argument", `The body is not whole multipart/form-data: ${why}.`, {
    reason: "malformed_multipart",
    cause,
  });
}
