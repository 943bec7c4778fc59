import { bytesOf, type Piece, sizeOf } from "./source.js";

/** A signed request, and the bytes it carries. */
export interface Transfer {
  method: string;
  url: string;
  headers: Record<string, string>;
  piece: Piece;
  /** Tells how many bytes of the piece are sent. */
  onSent(bytes: number): void;
  signal: AbortSignal | undefined;
}

/** What the object store answered. */
export interface Answer {
  status: number;
  /** Without quotes; empty where the store doesn't show it to pages. */
  etag: string;
  /** S3's code of an error, such as `AccessDenied`, or empty. */
  code: string;
}

/** The store gave no answer. The message never holds the URL. */
export class NetworkFailure extends Error {}

/**
 * Sends a piece. Throws a NetworkFailure when no answer came, the signal's
 * reason when it aborts, and whatever reading the piece threw.
 */
export type Send = (transfer: Transfer) => Promise<Answer>;

// How long the object store may take to answer once it has all bytes.
const answerTimeoutMs = 120_000;
// A store that refuses a request says why in a few lines of XML.
const maxRefusalChars = 8 << 10;

/** The way to send bytes that tells most about its progress here. */
export function bestSend(): Send {
  return typeof XMLHttpRequest === "undefined" ? sendByFetch : sendByXhr;
}

/** Sends as browsers do: fetch can't tell there how much is sent. */
export const sendByXhr: Send = ({ method, url, headers, piece, onSent, signal }) =>
  new Promise((resolve, reject) => {
    const xhr = new XMLHttpRequest();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const onAbort = () => {
      reject(signal?.reason);
      xhr.abort();
    };
    const fail = (message: string) => reject(new NetworkFailure(message));
    xhr.open(method, url);
    for (const [name, value] of Object.entries(headers)) {
      xhr.setRequestHeader(name, value);
    }
    xhr.upload.onprogress = ({ loaded }) => onSent(Math.min(loaded, sizeOf(piece)));
    xhr.upload.onload = () => {
      timer = setTimeout(() => {
        fail("time ran out");
        xhr.abort();
      }, answerTimeoutMs);
    };
    xhr.onload = () =>
      resolve({ status: xhr.status, etag: bare(xhr.getResponseHeader("ETag")), code: s3Code(xhr.responseText) });
    xhr.onerror = () => {
      // A browser says nothing about the cause; whether the file can still be read is for us to find out.
      firstBytes(piece).then(() => fail("the connection was lost or not allowed"), reject);
    };
    xhr.onloadend = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", onAbort);
    };
    signal?.addEventListener("abort", onAbort, { once: true });
    xhr.send(piece);
  });

/** Sends where there is no XMLHttpRequest. */
export const sendByFetch: Send = async ({ method, url, headers, piece, onSent, signal }) => {
  const controller = new AbortController();
  const onAbort = () => controller.abort(signal?.reason);
  signal?.addEventListener("abort", onAbort, { once: true });
  let timer: ReturnType<typeof setTimeout> | undefined;
  let broken: unknown;
  let ended = false;
  const counted = async function* () {
    let sent = 0;
    try {
      for await (const chunk of bytesOf(piece)) {
        yield chunk;
        if (ended) {
          return; // fetch may go on reading what it has given up
        }
        sent += chunk.length;
        onSent(sent);
      }
    } catch (err) {
      broken = err;
      throw err;
    }
    timer = setTimeout(() => controller.abort(new Error("time ran out")), answerTimeoutMs);
  };
  const request: RequestInit & { duplex?: "half" } = {
    method,
    headers,
    signal: controller.signal,
    redirect: "error",
    credentials: "omit",
    body: piece,
  };
  if (mayStateLength()) {
    // The store demands the length of what it gets, so a body that is counted has to state it.
    request.body = streamOf(counted());
    request.duplex = "half";
    request.headers = { ...headers, "Content-Length": String(sizeOf(piece)) };
  }
  try {
    const response = await fetch(url, request);
    const text = await response.text();

    return { status: response.status, etag: bare(response.headers.get("ETag")), code: s3Code(text) };
  } catch (err) {
    signal?.throwIfAborted();
    if (broken !== undefined) {
      throw broken;
    }
    throw new NetworkFailure(failureText(err));
  } finally {
    ended = true;
    clearTimeout(timer);
    signal?.removeEventListener("abort", onAbort);
  }
};

/** Node lets a program set Content-Length; others drop it and send streams in chunks. */
function mayStateLength(): boolean {
  return "process" in globalThis && process.release?.name === "node";
}

function streamOf(chunks: AsyncGenerator<Uint8Array<ArrayBuffer>>): ReadableStream<Uint8Array<ArrayBuffer>> {
  return new ReadableStream(
    {
      async pull(controller) {
        const { done, value } = await chunks.next();
        if (done) {
          controller.close();
        } else {
          controller.enqueue(value);
        }
      },
      async cancel() {
        await chunks.return(undefined);
      },
    },
    { highWaterMark: 0 }, // a chunk is counted when the next is asked for
  );
}

/** Fails if the piece can't be read any more. */
async function firstBytes(piece: Piece): Promise<void> {
  await bytesOf(piece).next();
}

function failureText(err: unknown): string {
  let at = err;
  while (at instanceof Error && at.cause !== undefined) {
    at = at.cause;
  }

  return at instanceof Error ? at.message : String(at);
}

function bare(etag: string | null): string {
  return etag?.replace(/^(W\/)?"|"$/g, "") ?? "";
}

function s3Code(body: string): string {
  return /<Code>([A-Za-z0-9]{1,64})<\/Code>/.exec(body.slice(0, maxRefusalChars))?.[1] ?? "";
}
