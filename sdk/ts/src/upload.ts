import type { Client } from "@connectrpc/connect";
import type { CreateUploadResponse, Upload, UploadedPart, UploadService } from "@tcoder/proto/tcoder/v1/upload_pb.js";
import { UploadState } from "@tcoder/proto/tcoder/v1/upload_pb.js";

import type { Caller } from "./caller.js";
import { invalid } from "./error.js";
import type { Job, JobSpecInit } from "./messages.js";
import { sendParts } from "./parts.js";
import { type OnProgress, ProgressSum } from "./progress.js";
import { put } from "./put.js";
import { type PieceReader, readerOf, unlessAborted, type UploadSource } from "./source.js";

// Joining the parts of a large upload is work of minutes for some stores.
const completeTimeoutMs = 600_000;
const defaultParallel = 4;

/** What is uploaded, and what its job shall produce. */
export interface UploadOptions {
  /** The name to declare, without a path. A File's own when it is left out. */
  filename?: string;
  /** The MIME type to declare; application/octet-stream when it is left out. */
  contentType?: string;
  /** What to produce; the preset `default` when it is left out. */
  spec?: JobSpecInit;
  /**
   * Names this upload for 7 days: a later call with the same key, source and
   * options goes on where an earlier one was cut off, or returns its job. One is
   * made up when it is left out.
   */
  idempotencyKey?: string;
  /** The caller's own data, returned with the job. */
  labels?: Record<string, string>;
  /** Starts the job before others of lower priority. -100 to 100. */
  priority?: number;
  /** How many parts are sent at a time. Default 4. */
  parallel?: number;
  /**
   * Called once the upload and its job exist, before any byte is sent. Whoever
   * gives up later can cancel the job.
   */
  onOpen?: (upload: Upload) => void;
  /** Called as bytes are sent. It never falls, and what an earlier call sent counts. */
  onProgress?: OnProgress;
  /** Ends the upload; it throws the signal's reason. */
  signal?: AbortSignal;
}

/** A finished upload. */
export interface UploadResult {
  /** The upload as the server knows it. */
  upload: Upload;
  /** The job that has started with it. */
  job: Job;
}

/** One call of upload. */
export class Uploading {
  readonly caller: Caller;
  readonly client: Client<typeof UploadService>;
  readonly reader: PieceReader;
  readonly progress: ProgressSum;
  readonly parallel: number;
  readonly signal: AbortSignal | undefined;
  /** True if an earlier call may have sent something. */
  readonly resumable: boolean;
  readonly #options: UploadOptions;
  readonly #filename: string;
  readonly #idempotencyKey: string;

  constructor(caller: Caller, client: Client<typeof UploadService>, source: UploadSource, options: UploadOptions) {
    this.caller = caller;
    this.client = client;
    this.reader = readerOf(source);
    if (!Number.isSafeInteger(this.reader.sizeBytes) || this.reader.sizeBytes < 1) {
      throw invalid("SIZE_INVALID", "the size has to be a whole number of bytes, at least 1");
    }
    this.progress = new ProgressSum(this.reader.sizeBytes, options.onProgress);
    this.parallel = options.parallel ?? defaultParallel;
    this.signal = options.signal;
    this.resumable = options.idempotencyKey !== undefined;
    this.#options = options;
    this.#filename = options.filename ?? ("name" in source ? String(source.name) : "");
    this.#idempotencyKey = options.idempotencyKey ?? newIdempotencyKey();
  }

  async run(): Promise<UploadResult> {
    try {
      return await this.#run();
    } finally {
      await this.reader.close();
    }
  }

  async #run(): Promise<UploadResult> {
    const opened = await this.#open();
    const upload = given(opened.upload);
    this.#options.onOpen?.(upload);
    const parts = await this.#send(upload, opened);
    const done = await this.caller.call(
      (options) => this.client.completeUpload({ uploadId: upload.id, parts }, options),
      this.signal,
      completeTimeoutMs,
    );
    this.progress.finish();

    return { upload: given(done.upload), job: given(done.job) };
  }

  async #send(upload: Upload, opened: CreateUploadResponse): Promise<UploadedPart[]> {
    if (upload.state !== UploadState.OPEN) {
      return []; // an earlier call ended it; CompleteUpload tells how
    }
    if (opened.put === undefined) {
      return sendParts(this, upload, opened.parts);
    }
    await put(this.caller, {
      piece: await unlessAborted(this.reader.read(0, this.reader.sizeBytes), this.signal),
      request: opened.put,
      sign: async () => (await this.#open()).put,
      onSent: (bytes) => this.progress.set(0, bytes),
      signal: this.signal,
    });

    return [];
  }

  /** Opens the upload, or, with a known key, gives the first one with fresh URLs. */
  #open(): Promise<CreateUploadResponse> {
    const { contentType = "", spec, labels = {}, priority = 0 } = this.#options;

    return this.caller.call(
      (options) =>
        this.client.createUpload(
          {
            filename: this.#filename,
            sizeBytes: BigInt(this.reader.sizeBytes),
            contentType,
            idempotencyKey: this.#idempotencyKey,
            labels,
            priority,
            ...(spec && { spec }),
          },
          options,
        ),
      this.signal,
    );
  }
}

/** A message that the API promises to set. */
export function given<T>(message: T | undefined): T {
  if (message === undefined) {
    throw new TypeError("the server's answer lacks a message that this API promises");
  }

  return message;
}

/** A key that nobody else has. crypto.randomUUID isn't there on pages without TLS. */
export function newIdempotencyKey(): string {
  const random = crypto.getRandomValues(new Uint8Array(16));

  return `sdk-${Array.from(random, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}
