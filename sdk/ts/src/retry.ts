/**
 * How calls and transfers are repeated when the other side can't be reached or
 * is overloaded. Each pause is drawn between half and one and a half of a delay
 * that doubles from `firstDelayMs` to `maxDelayMs`.
 */
export interface RetryPolicy {
  /** The first pause. Default 200 ms. */
  firstDelayMs?: number;
  /** Bounds the delay. Default 5 s. */
  maxDelayMs?: number;
  /** How long failures in a row are borne once the server has answered this client. Default 1 min. */
  patienceMs?: number;
  /** The same for a server that never answered. Default 2 s. */
  firstPatienceMs?: number;
}

export const defaultRetry: Required<RetryPolicy> = {
  firstDelayMs: 200,
  maxDelayMs: 5_000,
  patienceMs: 60_000,
  firstPatienceMs: 2_000,
};

/** Counts failures in a row. */
export class Retrier {
  readonly #policy: Required<RetryPolicy>;
  #patienceMs: number;
  #delayMs = 0;
  #startedAt: number | undefined;

  constructor(policy: Required<RetryPolicy>, patienceMs: number) {
    this.#policy = policy;
    this.#patienceMs = patienceMs;
  }

  /**
   * Pauses before the next try, at least for the given time. False: give up.
   * Throws the signal's reason when it aborts.
   */
  async wait(signal: AbortSignal | undefined, atLeastMs: number): Promise<boolean> {
    const now = performance.now();
    if (this.#startedAt === undefined) {
      this.#startedAt = now;
      this.#delayMs = this.#policy.firstDelayMs;
    }
    const pauseMs = Math.max(atLeastMs, this.#delayMs / 2 + Math.random() * this.#delayMs);
    if (now + pauseMs - this.#startedAt > this.#patienceMs) {
      return false;
    }
    this.#delayMs = Math.min(2 * this.#delayMs, this.#policy.maxDelayMs);
    await pause(pauseMs, signal);

    return true;
  }

  /** Forgets the failures: something worked. */
  reset(patienceMs: number): void {
    this.#startedAt = undefined;
    this.#patienceMs = patienceMs;
  }
}

function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) {
      reject(signal.reason);

      return;
    }
    const onAbort = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", onAbort);
      resolve();
    }, ms);
    signal?.addEventListener("abort", onAbort, { once: true });
  });
}
