import assert from "node:assert/strict";
import { test } from "node:test";

import type { MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import type { JobSchema, WatchJobResponseSchema } from "@tcoder/proto/tcoder/v1/job_pb.js";
import { ErrorReason, isReason, type Job, JobState, type Tcoder } from "@tcoder/sdk";

import { refusal, ScriptedServer, unavailable } from "./server.js";

const lastSequence = 8n;

/** The job once the given event has happened; the last one ends it. */
function jobAt(sequence: bigint): MessageInitShape<typeof JobSchema> {
  return { id: "j", sequence, state: sequence >= lastSequence ? JobState.COMPLETED : JobState.RUNNING };
}

function eventAt(sequence: bigint): MessageInitShape<typeof WatchJobResponseSchema> {
  return { job: jobAt(sequence), event: { sequence, jobId: "j" } };
}

/** Collects the events of a watch. */
async function eventsOf(client: Tcoder, afterSequence = 0n): Promise<{ events: bigint[]; last: Job | undefined }> {
  const events: bigint[] = [];
  let last: Job | undefined;
  for await (const { job, event } of client.watch("j", { afterSequence })) {
    if (event !== undefined) {
      events.push(event.sequence);
    }
    last = job;
  }

  return { events, last };
}

test("each event comes once and in order, however often the connection breaks", async (t) => {
  const server = await ScriptedServer.start(t);
  let streams = 0;
  const asked: bigint[] = [];
  server.script.jobs.watchJob = async function* ({ afterSequence }) {
    const n = ++streams;
    asked.push(afterSequence);
    // The job goes on between two streams.
    const now = 2n + BigInt(n) < lastSequence ? 2n + BigInt(n) : lastSequence;
    yield { job: jobAt(now) };
    let first = afterSequence + 1n;
    if (afterSequence === 0n) {
      first = now + 1n;
    } else if (n % 2 === 0) {
      first--; // one again, as a replica that lags behind might
    }
    for (let sequence = first; sequence <= now; sequence++) {
      yield eventAt(sequence);
    }
    if (now === lastSequence) {
      return;
    }
    throw n % 2 === 0 ? unavailable() : new ConnectError("broken", Code.Internal);
  };

  const { events, last } = await eventsOf(server.client());

  assert.deepEqual(events, [4n, 5n, 6n, 7n, 8n]);
  assert.deepEqual(asked, [0n, 3n, 4n, 5n, 6n, 7n]);
  assert.equal(last?.state, JobState.COMPLETED);
});

test("a connection that is cut in the middle of the stream costs no event", async (t) => {
  const server = await ScriptedServer.start(t);
  const asked: bigint[] = [];
  server.script.jobs.watchJob = async function* ({ afterSequence }, { signal }) {
    asked.push(afterSequence);
    yield eventAt(afterSequence + 1n);
    if (afterSequence + 1n < lastSequence) {
      await aborted(signal);
    }
  };

  const events: bigint[] = [];
  for await (const { event } of server.client().watch("j", { afterSequence: 5n })) {
    events.push(event!.sequence);
    server.breakConnections();
  }

  assert.deepEqual(events, [6n, 7n, 8n]);
  assert.deepEqual(asked, [5n, 6n, 7n]);
});

test("a stream that the server ends before the job does is opened again", async (t) => {
  const server = await ScriptedServer.start(t);
  server.script.jobs.watchJob = async function* ({ afterSequence }) {
    yield eventAt(afterSequence + 1n);
  };

  assert.deepEqual((await eventsOf(server.client(), 5n)).events, [6n, 7n, 8n]);
});

test("a silent connection is taken for a dead one", async (t) => {
  const server = await ScriptedServer.start(t);
  let streams = 0;
  server.script.jobs.watchJob = async function* (_, { signal }) {
    if (++streams < 3) {
      await aborted(signal);
    }
    yield eventAt(lastSequence);
  };

  assert.deepEqual((await eventsOf(server.client({ watchIdleMs: 50 }))).events, [lastSequence]);
  assert.ok(streams >= 3); // more on a computer that is slow to answer
});

test("a server that stays silent is unreachable", async (t) => {
  const server = await ScriptedServer.start(t);
  server.script.jobs.watchJob = async function* (_, { signal }) {
    await aborted(signal);
  };
  const client = server.client({ watchIdleMs: 20, retry: { firstDelayMs: 1, firstPatienceMs: 10 } });

  await assert.rejects(eventsOf(client), (err) => isReason(err, "UNREACHABLE"));
});

test("a refusal ends a watch at once", async (t) => {
  const server = await ScriptedServer.start(t);
  let streams = 0;
  server.script.jobs.watchJob = async function* () {
    streams++;
    throw refusal(Code.NotFound, { reason: ErrorReason.JOB_NOT_FOUND });
  };

  await assert.rejects(server.client().wait("j"), (err) => isReason(err, "JOB_NOT_FOUND"));
  assert.equal(streams, 1);
});

test("leaving the loop ends the stream at the server", async (t) => {
  const server = await ScriptedServer.start(t);
  let streamed: AbortSignal | undefined;
  server.script.jobs.watchJob = async function* (_, { signal }) {
    streamed = signal;
    yield eventAt(1n);
    await aborted(signal);
  };

  for await (const _ of server.client().watch("j")) {
    break;
  }

  await aborted(streamed!);
});

test("an aborted signal ends a watch with its reason", async (t) => {
  const server = await ScriptedServer.start(t);
  const controller = new AbortController();
  server.script.jobs.watchJob = async function* (_, { signal }) {
    yield eventAt(1n);
    controller.abort();
    await aborted(signal);
  };

  await assert.rejects(server.client().wait("j", { signal: controller.signal }), { name: "AbortError" });
});

test("a job that fails is a result of wait, not an error", async (t) => {
  const server = await ScriptedServer.start(t);
  server.script.jobs.watchJob = async function* () {
    yield { job: { state: JobState.FAILED, failure: { reason: ErrorReason.INPUT_NOT_MEDIA } } };
  };

  assert.equal((await server.client().wait("j")).failure?.reason, ErrorReason.INPUT_NOT_MEDIA);
});

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) {
      resolve();
    }
    signal.addEventListener("abort", () => resolve(), { once: true });
  });
}
