import { type Client, Code, ConnectError } from "@connectrpc/connect";
import type { JobService, WatchJobResponse } from "@tcoder/proto/tcoder/v1/job_pb.js";

import type { Caller } from "./caller.js";
import { isUnanswered, TcoderError, toTcoderError } from "./error.js";
import { type Job, type JobEvent, JobState } from "./messages.js";
import type { Retrier } from "./retry.js";

/** One change of a watched job. */
export interface Update {
  /** The job as it is now, with its tasks. */
  job: Job;
  /** What happened. Undefined on a snapshot and on progress alone. */
  event: JobEvent | undefined;
}

/** How a job is watched. */
export interface WatchOptions {
  /** Ends the watch; it throws the signal's reason. */
  signal?: AbortSignal;
  /**
   * Begins with the events after this sequence, for callers that have seen the
   * ones before. Without it a watch begins with the job as it is.
   */
  afterSequence?: bigint;
}

/** Reports whether a job has ended. */
export function isFinal(state: JobState): boolean {
  return state === JobState.COMPLETED || state === JobState.FAILED || state === JobState.CANCELED;
}

const idle = new TcoderError("nothing heard from the server", { code: "unavailable", reason: "UNREACHABLE" });
const cut = new TcoderError("the server closed the stream before the job's end", {
  code: "unavailable",
  reason: "UNREACHABLE",
});

/** One caller's watch, over any number of streams. */
export class Watch {
  readonly #caller: Caller;
  readonly #client: Client<typeof JobService>;
  readonly #idleMs: number;
  readonly #jobId: string;
  readonly #signal: AbortSignal | undefined;
  readonly #retry: Retrier;
  /** Sequence of the newest event that was told. */
  #after: bigint;
  /** The newest job that was told has ended. */
  #ended = false;

  constructor(
    caller: Caller,
    client: Client<typeof JobService>,
    idleMs: number,
    jobId: string,
    { signal, afterSequence = 0n }: WatchOptions,
  ) {
    this.#caller = caller;
    this.#client = client;
    this.#idleMs = idleMs;
    this.#jobId = jobId;
    this.#signal = signal;
    this.#retry = caller.newRetrier();
    this.#after = afterSequence;
  }

  async *run(): AsyncGenerator<Update, void, undefined> {
    for (;;) {
      this.#signal?.throwIfAborted();
      const stream = new AbortController();
      let failure: unknown;
      try {
        yield* this.#follow(stream);
        if (this.#ended) {
          return;
        }
        failure = cut;
      } catch (err) {
        failure = stream.signal.reason === idle ? idle : err;
      } finally {
        stream.abort(); // the caller may have seen enough
      }
      this.#signal?.throwIfAborted();
      const refusal = toTcoderError(failure);
      if (!isWorthReopening(failure) || !(await this.#retry.wait(this.#signal, refusal.retryAfterMs))) {
        throw refusal;
      }
    }
  }

  /** Reads one stream. */
  async *#follow(stream: AbortController): AsyncGenerator<Update, void, undefined> {
    const onAbort = () => stream.abort(this.#signal?.reason);
    this.#signal?.addEventListener("abort", onAbort, { once: true });
    const startIdle = () => setTimeout(() => stream.abort(idle), this.#idleMs);
    let timer = startIdle();
    try {
      const messages = this.#client.watchJob(
        { jobId: this.#jobId, afterSequence: this.#after },
        { headers: this.#caller.headers, signal: stream.signal },
      );
      for await (const message of messages) {
        clearTimeout(timer); // the caller may take its time
        this.#caller.reached = true;
        this.#retry.reset(this.#caller.retry.patienceMs);
        const update = this.#take(message);
        if (update !== undefined) {
          yield update;
        }
        timer = startIdle();
      }
    } finally {
      clearTimeout(timer);
      this.#signal?.removeEventListener("abort", onAbort);
    }
  }

  /** Makes an update of a message; undefined if it was told before. */
  #take({ job, event }: WatchJobResponse): Update | undefined {
    if (job === undefined) {
      return undefined;
    }
    if (event !== undefined) {
      if (event.sequence <= this.#after) {
        return undefined;
      }
      this.#after = event.sequence;
    } else if (this.#after === 0n) {
      // Events from here on are asked for; a later snapshot doesn't count,
      // because the events before it are still to come.
      this.#after = job.sequence;
    }
    this.#ended = isFinal(job.state);

    return { job, event };
  }
}

/**
 * Reports whether a watch that ended like this is worth opening again. A cut
 * connection has many codes, so the question is which ones are answers.
 */
function isWorthReopening(failure: unknown): boolean {
  if (failure === idle || failure === cut) {
    return true;
  }
  const err = ConnectError.from(failure);
  if (isUnanswered(err)) {
    return true;
  }
  switch (err.code) {
    case Code.InvalidArgument:
    case Code.NotFound:
    case Code.PermissionDenied:
    case Code.Unauthenticated:
    case Code.FailedPrecondition:
    case Code.Unimplemented:
      return false;
    default:
      return true;
  }
}
