import type { SignedRequest } from "@tcoder/proto/tcoder/v1/upload_pb.js";

import type { Caller } from "./caller.js";
import { TcoderError } from "./error.js";
import type { Piece } from "./source.js";
import { type Answer, bestSend, NetworkFailure } from "./transfer.js";

// A URL is signed again when it has less than this left.
const signMarginMs = 10_000;
// A store that refuses freshly signed requests so often means it.
const maxRefusals = 2;

/** One piece on its way to the store. */
export interface Put {
  piece: Piece;
  /** The first request to try. */
  request: SignedRequest;
  /** Gives a fresh request, or undefined if the object turns out to be stored. */
  sign(): Promise<SignedRequest | undefined>;
  onSent(bytes: number): void;
  signal: AbortSignal | undefined;
}

export function expiresSoon({ expiresAt }: SignedRequest): boolean {
  return expiresAt !== undefined && Number(expiresAt.seconds) * 1000 - Date.now() < signMarginMs;
}

/**
 * Sends a piece by a signed request and gives its ETag, empty if that isn't
 * known. It is sent again after a lost connection or an error of the store, and
 * signed again when the store says no, for the request may have expired.
 */
export async function put(caller: Caller, { piece, request, sign, onSent, signal }: Put): Promise<string> {
  const send = bestSend();
  const retry = caller.newRetrier();
  let refusals = 0;
  let next: SignedRequest | undefined = request;
  for (;;) {
    signal?.throwIfAborted();
    if (expiresSoon(next)) {
      refusals = maxRefusals; // what comes is fresh
      next = await sign();
      if (next === undefined) {
        return "";
      }
    }
    onSent(0);
    let failure: string;
    try {
      const { method, url, headers } = next;
      const answer = await send({ method, url, headers, piece, onSent, signal });
      if (isStored(answer)) {
        return answer.status === 412 ? "" : answer.etag;
      }
      failure = `HTTP ${answer.status} ${answer.code}`.trimEnd();
      if (!isTemporary(answer)) {
        if (++refusals >= maxRefusals) {
          throw storeError(`the object store refused the upload: ${failure}`);
        }
        next = await sign();
        if (next === undefined) {
          return "";
        }
        continue;
      }
    } catch (err) {
      if (!(err instanceof NetworkFailure)) {
        throw err;
      }
      failure = err.message;
    }
    if (!(await retry.wait(signal, 0))) {
      throw storeError(`the upload to the object store failed: ${failure}`);
    }
    // A refusal that comes while bytes are under way can look like a lost
    // connection, so an old request isn't trusted a second time.
    next = await sign();
    if (next === undefined) {
      return "";
    }
  }
}

/** True also when an earlier try arrived and only its answer was lost; CompleteUpload checks it. */
function isStored({ status }: Answer): boolean {
  return Math.floor(status / 100) === 2 || status === 412;
}

function isTemporary({ status, code }: Answer): boolean {
  // 409: two writes met.
  return status >= 500 || status === 429 || status === 408 || status === 409 || code === "RequestTimeout";
}

function storeError(message: string): TcoderError {
  return new TcoderError(message, {
    code: "unavailable",
    reason: "OBJECT_STORE_UNAVAILABLE",
    remedy: "check that the object store runs and that this computer can reach it",
  });
}
