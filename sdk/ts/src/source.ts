import { type Reason, TcoderError } from "./error.js";
import { Md5 } from "./md5.js";

/**
 * What can be uploaded. A Blob or File is read where it lies, piece by piece,
 * and each piece again when it has to be sent again; in Node `fs.openAsBlob`
 * makes one of a file. A stream is read once: each part of it is held in memory
 * until it is stored.
 */
export type UploadSource = Blob | Uint8Array | StreamSource;

/** A stream of exactly known length. */
export interface StreamSource {
  stream: ReadableStream<Uint8Array> | AsyncIterable<Uint8Array>;
  /** Bytes that the stream gives; what comes after them is left unread. */
  size: number;
}

/** A range of a source that can be read any number of times. */
export type Piece = Blob | Uint8Array<ArrayBuffer>;

/** Gives the ranges of a source, in ascending order. */
export interface PieceReader {
  readonly sizeBytes: number;
  /** Reads the next range. Waits for the ones asked for before. */
  read(offset: number, sizeBytes: number): Promise<Piece>;
  /** Lets go of what is left of a stream, and of whoever still reads. */
  close(): Promise<void>;
}

/** The caller's source failed, not the network. */
export class SourceFailure extends TcoderError {
  constructor(message: string, reason: Reason = "REQUEST_INVALID", cause?: unknown) {
    super(message, { code: "invalid_argument", reason, cause });
  }
}

const chunkBytes = 256 << 10;

/** Says how the bytes of a source are read. */
export function readerOf(source: UploadSource): PieceReader {
  if (source instanceof Blob) {
    return {
      sizeBytes: source.size,
      read: async (offset, sizeBytes) => source.slice(offset, offset + sizeBytes),
      close: async () => {},
    };
  }
  if (source instanceof Uint8Array) {
    return {
      sizeBytes: source.byteLength,
      read: async (offset, sizeBytes) => source.subarray(offset, offset + sizeBytes) as Uint8Array<ArrayBuffer>,
      close: async () => {},
    };
  }

  return new StreamReader(source);
}

class StreamReader implements PieceReader {
  readonly sizeBytes: number;
  readonly #chunks: Chunks;
  #rest = new Uint8Array(0);
  #position = 0;
  #last: Promise<unknown> = Promise.resolve();

  constructor(source: StreamSource) {
    this.sizeBytes = source.size;
    this.#chunks = chunksOf(source.stream);
  }

  read(offset: number, sizeBytes: number): Promise<Piece> {
    const piece = this.#last.then(() => this.#next(offset, sizeBytes));
    this.#last = piece.catch(() => {}); // whoever asked gets the error

    return piece;
  }

  close(): Promise<void> {
    return this.#chunks.close();
  }

  async #next(offset: number, sizeBytes: number): Promise<Uint8Array<ArrayBuffer>> {
    if (offset !== this.#position) {
      throw new Error(`a stream at ${this.#position} was asked for ${offset}`);
    }
    const piece = new Uint8Array(sizeBytes);
    let filled = 0;
    while (filled < sizeBytes) {
      if (this.#rest.length === 0) {
        this.#rest = await this.#chunk();
      }
      const taken = this.#rest.subarray(0, sizeBytes - filled);
      piece.set(taken, filled);
      filled += taken.length;
      this.#rest = this.#rest.subarray(taken.length);
    }
    this.#position += sizeBytes;

    return piece;
  }

  async #chunk(): Promise<Uint8Array<ArrayBuffer>> {
    let chunk: Uint8Array | undefined;
    try {
      chunk = await this.#chunks.next();
    } catch (cause) {
      throw new SourceFailure("the source can't be read", "REQUEST_INVALID", cause);
    }
    if (chunk === undefined) {
      throw new SourceFailure("the source is shorter than declared", "SIZE_INVALID");
    }

    return chunk as Uint8Array<ArrayBuffer>;
  }
}

/** A stream of either kind; not every browser iterates a ReadableStream. */
interface Chunks {
  /** Undefined at the end. */
  next(): Promise<Uint8Array | undefined>;
  close(): Promise<void>;
}

function chunksOf(stream: StreamSource["stream"]): Chunks {
  if (stream instanceof ReadableStream) {
    const reader = stream.getReader();

    return {
      next: async () => (await reader.read()).value,
      close: () => reader.cancel().catch(() => {}), // it failed before, and that was told
    };
  }
  const chunks = stream[Symbol.asyncIterator]();

  return {
    next: async () => {
      const { done, value } = await chunks.next();

      return done ? undefined : value;
    },
    close: async () => {
      // Not awaited: a generator that waits for its next chunk can't end before it comes.
      chunks.return?.().catch(() => {});
    },
  };
}

/** Waits for a read, or throws the signal's reason: a stream may never go on. */
export function unlessAborted<T>(read: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(signal?.reason);
    signal?.addEventListener("abort", onAbort, { once: true });
    read.then(resolve, reject).finally(() => signal?.removeEventListener("abort", onAbort));
    if (signal?.aborted) {
      onAbort();
    }
  });
}

export function sizeOf(piece: Piece): number {
  return piece instanceof Blob ? piece.size : piece.byteLength;
}

/** Gives the bytes of a piece in chunks. */
export async function* bytesOf(piece: Piece): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  for (let at = 0, size = sizeOf(piece); at < size; at += chunkBytes) {
    if (!(piece instanceof Blob)) {
      yield piece.subarray(at, at + chunkBytes);
      continue;
    }
    let chunk: ArrayBuffer;
    try {
      chunk = await piece.slice(at, at + chunkBytes).arrayBuffer();
    } catch (cause) {
      throw new SourceFailure(
        "the source can't be read; it may have changed while it was sent",
        "REQUEST_INVALID",
        cause,
      );
    }
    yield new Uint8Array(chunk);
  }
}

/** Reports whether a piece has the given MD5, as S3 writes it in an ETag. */
export async function hasMd5(piece: Piece, etag: string, signal: AbortSignal | undefined): Promise<boolean> {
  const sum = new Md5();
  for await (const chunk of bytesOf(piece)) {
    signal?.throwIfAborted();
    sum.update(chunk);
  }

  return sum.hex() === etag;
}
