import { type CallOptions, ConnectError } from "@connectrpc/connect";

import { isTransient, toTcoderError } from "./error.js";
import { Retrier, type RetryPolicy } from "./retry.js";

const callTimeoutMs = 30_000;

/** A unary call, with its request given. */
export type Call<T> = (options: CallOptions) => Promise<T>;

/** Makes calls, and repeats them while the server can't be reached. */
export class Caller {
  readonly retry: Required<RetryPolicy>;
  readonly headers: HeadersInit;
  /** True once the server has answered: from then on a lost connection is worth waiting for. */
  reached = false;

  constructor(retry: Required<RetryPolicy>, headers: HeadersInit) {
    this.retry = retry;
    this.headers = headers;
  }

  /** Starts to count failures, with the patience that the server has earned. */
  newRetrier(): Retrier {
    return new Retrier(this.retry, this.reached ? this.retry.patienceMs : this.retry.firstPatienceMs);
  }

  /** Makes a call that is safe to repeat, as all of them are. */
  async call<T>(fn: Call<T>, signal?: AbortSignal, timeoutMs = callTimeoutMs): Promise<T> {
    const retry = this.newRetrier();
    for (;;) {
      signal?.throwIfAborted();
      try {
        const answer = await fn({ headers: this.headers, timeoutMs, ...(signal && { signal }) });
        this.reached = true;

        return answer;
      } catch (thrown) {
        signal?.throwIfAborted();
        const err = ConnectError.from(thrown);
        const refusal = toTcoderError(err);
        if (!isTransient(err)) {
          this.reached ||= refusal.reason !== "UNREACHABLE";
          throw refusal;
        }
        if (!(await retry.wait(signal, refusal.retryAfterMs))) {
          throw refusal;
        }
      }
    }
  }
}
