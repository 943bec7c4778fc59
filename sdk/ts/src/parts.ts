import type { SignedPart, SignedRequest, Upload, UploadedPart } from "@tcoder/proto/tcoder/v1/upload_pb.js";
import { UploadedPartSchema } from "@tcoder/proto/tcoder/v1/upload_pb.js";
import { create } from "@bufbuild/protobuf";

import { expiresSoon, put } from "./put.js";
import { hasMd5, type Piece, unlessAborted } from "./source.js";
import type { Uploading } from "./upload.js";

/** How many parts are signed by one call. */
const signBatch = 16;

/**
 * Sends the parts that the store doesn't hold yet, several at a time, and gives
 * all of them by number; none if the store hides ETags, so that it is asked
 * itself when the upload completes.
 */
export async function sendParts(u: Uploading, upload: Upload, signed: SignedPart[]): Promise<UploadedPart[]> {
  const held = u.resumable ? await heldParts(u, upload) : new Map<number, UploadedPart>();
  const parts: UploadedPart[] = [];
  const signer = new PartSigner(u, upload, signed, held);
  const stop = new AbortController();
  const onAbort = () => stop.abort(u.signal?.reason);
  u.signal?.addEventListener("abort", onAbort, { once: true });
  let number = 1;
  const sender = async () => {
    while (number <= upload.partCount && !stop.signal.aborted) {
      const part = number++;
      parts[part - 1] = await sendPart(u, upload, signer, held.get(part), part, stop.signal);
    }
  };
  const senders = Array.from({ length: Math.min(u.parallel, upload.partCount) }, () =>
    sender().catch((err: unknown) => stop.abort(err)),
  );
  await Promise.all(senders);
  u.signal?.removeEventListener("abort", onAbort);
  stop.signal.throwIfAborted();

  return parts.some(({ etag }) => etag === "") ? [] : parts;
}

async function heldParts(u: Uploading, upload: Upload): Promise<Map<number, UploadedPart>> {
  const { parts } = await u.caller.call((options) => u.client.getUpload({ uploadId: upload.id }, options), u.signal);

  return new Map(parts.map((part) => [part.partNumber, part]));
}

/** Sends one part, unless the store holds exactly it. */
async function sendPart(
  u: Uploading,
  upload: Upload,
  signer: PartSigner,
  held: UploadedPart | undefined,
  partNumber: number,
  signal: AbortSignal,
): Promise<UploadedPart> {
  const partSizeBytes = Number(upload.partSizeBytes);
  const offset = (partNumber - 1) * partSizeBytes;
  const sizeBytes = Math.min(partSizeBytes, u.reader.sizeBytes - offset);
  const piece = await unlessAborted(u.reader.read(offset, sizeBytes), signal);
  if (held !== undefined && (await isSame(held, piece, sizeBytes, signal))) {
    u.progress.set(partNumber, sizeBytes);

    return held;
  }
  const etag = await put(u.caller, {
    piece,
    request: await signer.sign(partNumber, signal),
    sign: () => signer.signAgain(partNumber, signal),
    onSent: (bytes) => u.progress.set(partNumber, bytes),
    signal,
  });

  return create(UploadedPartSchema, { partNumber, etag, sizeBytes: BigInt(sizeBytes) });
}

/**
 * Reports whether a stored part is what the source has there now: the ETag of a
 * part is its MD5, and where a store computes something else it is sent again.
 */
async function isSame(held: UploadedPart, piece: Piece, sizeBytes: number, signal: AbortSignal): Promise<boolean> {
  return held.sizeBytes === BigInt(sizeBytes) && (await hasMd5(piece, held.etag, signal));
}

/** Asks for signed parts, some at a time. */
class PartSigner {
  readonly #u: Uploading;
  readonly #uploadId: string;
  readonly #signed = new Map<number, SignedRequest>();
  /** To be signed in the next calls, ascending. */
  readonly #pending: number[] = [];
  #last: Promise<unknown> = Promise.resolve();

  constructor(u: Uploading, upload: Upload, signed: SignedPart[], held: Map<number, UploadedPart>) {
    this.#u = u;
    this.#uploadId = upload.id;
    this.#take(signed);
    for (let number = 1; number <= upload.partCount; number++) {
      if (!held.has(number) && !this.#signed.has(number)) {
        this.#pending.push(number);
      }
    }
  }

  /**
   * Gives the signed request of a part, and asks for those of the next parts
   * with it. Others wait meanwhile: theirs is likely among them.
   */
  sign(number: number, signal: AbortSignal): Promise<SignedRequest> {
    const signed = this.#last.then(() => this.#sign(number, signal));
    this.#last = signed.catch(() => {}); // whoever asked gets the error

    return signed;
  }

  /** The same for a part whose request no longer works. */
  signAgain(number: number, signal: AbortSignal): Promise<SignedRequest> {
    this.#signed.delete(number);

    return this.sign(number, signal);
  }

  async #sign(number: number, signal: AbortSignal): Promise<SignedRequest> {
    const known = this.#signed.get(number);
    if (known !== undefined && !expiresSoon(known)) {
      return known;
    }
    const partNumbers = [number];
    while (this.#pending.length > 0 && partNumbers.length < signBatch) {
      const next = this.#pending.shift();
      if (next !== undefined && next !== number) {
        partNumbers.push(next);
      }
    }
    const { parts } = await this.#u.caller.call(
      (options) => this.#u.client.signUploadParts({ uploadId: this.#uploadId, partNumbers }, options),
      signal,
    );
    this.#take(parts);
    const fresh = this.#signed.get(number);
    if (fresh === undefined) {
      throw new TypeError(`the server did not sign part ${number}`);
    }

    return fresh;
  }

  #take(parts: SignedPart[]): void {
    for (const { partNumber, request } of parts) {
      if (request !== undefined) {
        this.#signed.set(partNumber, request);
      }
    }
  }
}
