import type { Client } from "@connectrpc/connect";
import type { JobService, WatchJobResponse } from "@tcoder/proto/tcoder/v1/job_pb.js";

import type { Caller } from "./caller.js";
import { follow } from "./follow.js";
import { type Job, type JobEvent, JobState } from "./messages.js";

/** One change of a watched job. */
export interface Update {
  /** The job as it is now, with its tasks. On progress alone what it tells of tasks and renditions may be a second old. */
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

/** One caller's watch, over any number of streams. */
export class Watch {
  readonly #caller: Caller;
  readonly #client: Client<typeof JobService>;
  readonly #idleMs: number;
  readonly #jobId: string;
  readonly #signal: AbortSignal | undefined;
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
    this.#after = afterSequence;
  }

  async *run(): AsyncGenerator<Update, void, undefined> {
    const messages = follow(this.#caller, this.#idleMs, this.#signal, {
      open: (options) => this.#client.watchJob({ jobId: this.#jobId, afterSequence: this.#after }, options),
      ended: () => this.#ended,
    });
    for await (const message of messages) {
      const update = this.#take(message);
      if (update !== undefined) {
        yield update;
      }
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
