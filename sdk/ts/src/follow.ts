import { type CallOptions, Code, ConnectError } from "@connectrpc/connect";

import type { Caller } from "./caller.js";
import { isUnanswered, TcoderError, toTcoderError } from "./error.js";
import type { Retrier } from "./retry.js";

const idle = new TcoderError("nothing heard from the server", { code: "unavailable", reason: "UNREACHABLE" });
const cut = new TcoderError("the server closed the stream", { code: "unavailable", reason: "UNREACHABLE" });

/** A stream of the server that can be opened again. */
export interface Stream<M> {
  open(options: CallOptions): AsyncIterable<M>;
  /** Tells whether the stream has said all that there is; else its end is a cut. */
  ended?(): boolean;
}

/** Yields the messages of a stream, and opens it again when the connection is lost. */
export async function* follow<M>(
  caller: Caller,
  idleMs: number,
  signal: AbortSignal | undefined,
  source: Stream<M>,
): AsyncGenerator<M, void, undefined> {
  const retry = caller.newRetrier();
  for (;;) {
    signal?.throwIfAborted();
    const stream = new AbortController();
    let failure: unknown;
    try {
      yield* read(caller, idleMs, signal, source, stream, retry);
      if (source.ended?.()) {
        return;
      }
      failure = cut;
    } catch (err) {
      failure = stream.signal.reason === idle ? idle : err;
    } finally {
      stream.abort(); // the caller may have seen enough
    }
    signal?.throwIfAborted();
    const refusal = toTcoderError(failure);
    if (!isWorthReopening(failure) || !(await retry.wait(signal, refusal.retryAfterMs))) {
      throw refusal;
    }
  }
}

/** Reads one stream. */
async function* read<M>(
  caller: Caller,
  idleMs: number,
  signal: AbortSignal | undefined,
  source: Stream<M>,
  stream: AbortController,
  retry: Retrier,
): AsyncGenerator<M, void, undefined> {
  const onAbort = () => stream.abort(signal?.reason);
  signal?.addEventListener("abort", onAbort, { once: true });
  const startIdle = () => setTimeout(() => stream.abort(idle), idleMs);
  let timer = startIdle();
  try {
    for await (const message of source.open({ headers: caller.headers, signal: stream.signal })) {
      clearTimeout(timer); // the caller may take its time
      caller.reached = true;
      retry.reset(caller.retry.patienceMs);
      yield message;
      timer = startIdle();
    }
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", onAbort);
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
