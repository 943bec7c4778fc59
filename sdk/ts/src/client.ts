import { type Client, Code, ConnectError, createClient, type Transport } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-web";
import { JobService } from "@tcoder/proto/tcoder/v1/job_pb.js";
import { PoolService } from "@tcoder/proto/tcoder/v1/pool_pb.js";
import { UploadService } from "@tcoder/proto/tcoder/v1/upload_pb.js";

import { Caller } from "./caller.js";
import { follow } from "./follow.js";
import type {
  ErrorReason,
  Job,
  JobSpecInit,
  JobState,
  Machine,
  Pool,
  PoolChange,
  PoolSettings,
  PoolUpdate,
  Preset,
  ReadableObject,
  Upload,
  UploadedPart,
  Worker,
} from "./messages.js";
import { defaultRetry, type RetryPolicy } from "./retry.js";
import type { UploadSource } from "./source.js";
import { given, newIdempotencyKey, Uploading, type UploadOptions, type UploadResult } from "./upload.js";
import { type Update, Watch, type WatchOptions } from "./watch.js";

// A watch that says nothing for so long is opened again: over HTTP/1.1 nothing
// else tells a quiet server from a dead one.
const defaultWatchIdleMs = 45_000;

/** How a {@link Tcoder} reaches its server. */
export interface TcoderOptions {
  /** Address of the server, such as http://127.0.0.1:8080. */
  baseUrl: string;
  /** Sent with every call to the server as a bearer token, never to the object store. */
  apiKey?: string;
  /** Replaces the Connect protocol over fetch, which works in browsers and Node. It brings its own address. */
  transport?: Transport;
  /** Replaces fields of the retry policy. */
  retry?: RetryPolicy;
  /** How long a watch may hear nothing before it opens its stream again. Default 45 s. */
  watchIdleMs?: number;
}

/** What a single call takes. */
export interface CallOptions {
  /** Ends the call; it throws the signal's reason. */
  signal?: AbortSignal;
}

/** Which jobs a list has. */
export interface ListOptions extends CallOptions {
  /** The states that a job may be in; none means all. */
  states?: JobState[];
  /** The reasons that a job may have failed or been canceled for; none means all jobs. */
  reasons?: ErrorReason[];
}

/** The wishes for a job on an object that is already stored. */
export interface JobOptions extends CallOptions {
  /** What to produce; the preset `default` when it is left out. */
  spec?: JobSpecInit;
  /**
   * Makes a second call return the first one's job. One is made up when it is
   * left out, so that retries within the call are safe.
   */
  idempotencyKey?: string;
  /** Starts the job before others of lower priority. -100 to 100. */
  priority?: number;
  /** The caller's own data. */
  labels?: Record<string, string>;
}

/**
 * A client of one server. It keeps nothing but what it was given, and may be
 * used for any number of calls at a time.
 *
 * Every method repeats what is safe to repeat when the server or the object
 * store can't be reached, with growing, jittered pauses (see RetryPolicy), and
 * ends when its signal aborts. It fails with a TcoderError.
 */
export class Tcoder {
  readonly #caller: Caller;
  readonly #uploads: Client<typeof UploadService>;
  readonly #jobs: Client<typeof JobService>;
  readonly #pool: Client<typeof PoolService>;
  readonly #watchIdleMs: number;

  /** Connects to nothing. Throws a TypeError for an address that is not http or https. */
  constructor({ baseUrl, apiKey, transport, retry, watchIdleMs = defaultWatchIdleMs }: TcoderOptions) {
    if (!URL.canParse(baseUrl) || !/^https?:$/.test(new URL(baseUrl).protocol)) {
      throw new TypeError(`server URL "${baseUrl}" is not of the form http://host:port`);
    }
    const used = transport ?? createConnectTransport({ baseUrl: baseUrl.replace(/\/+$/, ""), useBinaryFormat: true });
    this.#caller = new Caller({ ...defaultRetry, ...retry }, apiKey ? { Authorization: `Bearer ${apiKey}` } : {});
    this.#uploads = createClient(UploadService, used);
    this.#jobs = createClient(JobService, used);
    this.#pool = createClient(PoolService, used);
    this.#watchIdleMs = watchIdleMs;
  }

  /**
   * Sends a source to the object store, straight and without passing the
   * server, and starts its job. Large sources go in parts, several at a time.
   *
   * When it fails or is aborted, the upload stays open until its deadline, so
   * that a call with the same idempotency key can go on; cancel its job to drop
   * it.
   *
   * A project that has as many waiting jobs as it may is refused with QUEUE_FULL
   * before any byte is sent, and isn't waited for: see createJob.
   *
   * Reasons beside those of the server: SIZE_INVALID when the source is empty or
   * shorter than declared, REQUEST_INVALID when it can't be read,
   * OBJECT_STORE_UNAVAILABLE when the store refuses the bytes or can't be
   * reached.
   */
  async upload(source: UploadSource, options: UploadOptions = {}): Promise<UploadResult> {
    return new Uploading(this.#caller, this.#uploads, source, options).run();
  }

  /** Gives an open upload up, removes what was stored of it, and cancels its job. */
  async abortUpload(uploadId: string, { signal }: CallOptions = {}): Promise<Upload> {
    const { upload } = await this.#caller.call((options) => this.#uploads.abortUpload({ uploadId }, options), signal);

    return given(upload);
  }

  /** Reads an upload, with the parts that the store holds of it. */
  async getUpload(
    uploadId: string,
    { signal }: CallOptions = {},
  ): Promise<{ upload: Upload; parts: UploadedPart[] }> {
    const answer = await this.#caller.call((options) => this.#uploads.getUpload({ uploadId }, options), signal);

    return { upload: given(answer.upload), parts: answer.parts };
  }

  /**
   * Starts a job on an object of the input bucket.
   *
   * QUEUE_FULL, here and where an upload is opened, says that the project has as
   * many waiting jobs as it may: it isn't waited for, since only the caller knows
   * what can wait. `retryAfterMs` says when the same call can succeed.
   */
  async createJob(objectKey: string, wishes: JobOptions = {}): Promise<Job> {
    const { spec, idempotencyKey = newIdempotencyKey(), priority = 0, labels = {}, signal } = wishes;
    const request = { objectKey, idempotencyKey, priority, labels, ...(spec && { spec }) };
    const { job } = await this.#caller.call((options) => this.#jobs.createJob(request, options), signal);

    return given(job);
  }

  /** Reads a job with its tasks and attempts. */
  async getJob(jobId: string, { signal }: CallOptions = {}): Promise<Job> {
    const { job } = await this.#caller.call((options) => this.#jobs.getJob({ jobId }, options), signal);

    return given(job);
  }

  /**
   * Yields the jobs in the given states, that failed or were canceled for the
   * given reasons, newest first, and reads pages as it goes. None means all.
   */
  async *listJobs({ states = [], reasons = [], signal }: ListOptions = {}): AsyncGenerator<Job, void> {
    let pageToken = "";
    do {
      const request = { states, reasons, pageToken };
      const page = await this.#caller.call((options) => this.#jobs.listJobs(request, options), signal);
      yield* page.jobs;
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
  }

  /**
   * Yields a snapshot of the job, then every change of it, and ends after the
   * job's final state. When the connection is lost it is opened again and goes
   * on after the last event: each event comes once and in order, whatever
   * happens in between. After a reconnect there is another snapshot.
   *
   * It throws when the job is unknown, or the server was away for longer than
   * the client's patience.
   */
  watch(jobId: string, options: WatchOptions = {}): AsyncGenerator<Update, void, undefined> {
    return new Watch(this.#caller, this.#jobs, this.#watchIdleMs, jobId, options).run();
  }

  /**
   * Follows a job to its end and returns it. A job that failed or was canceled
   * is no error: its state and failure tell.
   */
  async wait(jobId: string, options: CallOptions = {}): Promise<Job> {
    let last: Job | undefined;
    for await (const { job } of this.watch(jobId, options)) {
      last = job;
    }

    return given(last);
  }

  /** Stops a live job. Canceling a canceled job is no error. */
  async cancelJob(jobId: string, { signal }: CallOptions = {}): Promise<Job> {
    const { job } = await this.#caller.call((options) => this.#jobs.cancelJob({ jobId }, options), signal);

    return given(job);
  }

  /**
   * Starts a failed or canceled job again. `run` is the run that the caller saw
   * end: a job whose next run has begun already is returned as it is, whoever
   * began it. Without it the job is read first, so that the call may be repeated
   * when an answer is lost. Fails with QUEUE_FULL as createJob does.
   */
  async retryJob(jobId: string, { run, signal }: CallOptions & { run?: number } = {}): Promise<Job> {
    const request = { jobId, run: run ?? (await this.getJob(jobId, signal && { signal })).run };
    const { job } = await this.#caller.call((options) => this.#jobs.retryJob(request, options), signal);

    return given(job);
  }

  /** Removes a finished job with its outputs, and its source if that came by upload and no other job has it. */
  async deleteJob(jobId: string, { signal }: CallOptions = {}): Promise<void> {
    let attempts = 0;
    await this.#caller.call(async (options) => {
      attempts++;
      try {
        await this.#jobs.deleteJob({ jobId }, options);
      } catch (err) {
        // The attempt before may have removed it, and its answer was lost.
        if (attempts === 1 || ConnectError.from(err).code !== Code.NotFound) {
          throw err;
        }
      }
    }, signal);
  }

  /**
   * Yields the files of a completed job with URLs to read them, or of a running
   * one those that can be played already, and reads pages as it goes. The URLs
   * are secrets until they expire.
   */
  async *outputs(
    jobId: string,
    { output = "", signal }: CallOptions & { output?: string } = {},
  ): AsyncGenerator<ReadableObject, void> {
    let pageToken = "";
    do {
      const request = { jobId, output, pageToken };
      const page = await this.#caller.call((options) => this.#jobs.listOutputObjects(request, options), signal);
      yield* page.objects;
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
  }

  /** Lists the presets with everything they resolve to. */
  async presets({ signal }: CallOptions = {}): Promise<Preset[]> {
    const { presets } = await this.#caller.call((options) => this.#jobs.listPresets({}, options), signal);

    return presets;
  }

  /** Reads the pool: its limit, what runs and what waits, and what keeps machines from coming. */
  async pool({ signal }: CallOptions = {}): Promise<Pool> {
    return this.#caller.call((options) => this.#pool.getPool({}, options), signal);
  }

  /** Lists the workers by id. */
  async workers({ signal }: CallOptions = {}): Promise<Worker[]> {
    const { workers } = await this.#caller.call((options) => this.#pool.listWorkers({}, options), signal);

    return workers;
  }

  /** Lists the pool's machines by id. */
  async machines({ signal }: CallOptions = {}): Promise<Machine[]> {
    const { machines } = await this.#caller.call((options) => this.#pool.listMachines({}, options), signal);

    return machines;
  }

  /**
   * Yields the pool with its machines and workers, and all of it again whenever
   * something has changed. When the connection is lost it is opened again. It
   * ends with its signal, or when the caller has seen enough, and throws when it
   * is refused or the server was away for longer than the client's patience.
   */
  watchPool({ signal }: CallOptions = {}): AsyncGenerator<PoolUpdate, void, undefined> {
    return follow(this.#caller, this.#watchIdleMs, signal, { open: (options) => this.#pool.watchPool({}, options) });
  }

  /** Changes settings of the pool while it runs, for good. Returns all of them. */
  async updatePool(change: PoolChange, { signal }: CallOptions = {}): Promise<PoolSettings> {
    const { settings } = await this.#caller.call((options) => this.#pool.updatePool(change, options), signal);

    return given(settings);
  }

  /** Tells a worker to finish what ends soon, hand back the rest, and exit. */
  async drainWorker(workerId: string, { signal }: CallOptions = {}): Promise<Worker> {
    const { worker } = await this.#caller.call((options) => this.#pool.drainWorker({ workerId }, options), signal);

    return given(worker);
  }

  /** Does so with all workers of a machine, which stops then. */
  async drainMachine(machineId: string, { signal }: CallOptions = {}): Promise<Machine> {
    const { machine } = await this.#caller.call((options) => this.#pool.drainMachine({ machineId }, options), signal);

    return given(machine);
  }
}
