import assert from "node:assert/strict";
import { createServer } from "node:http";
import { test } from "node:test";

import { Code } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { ErrorReason, isReason, JobState, reasonName, Tcoder, TcoderError } from "@tcoder/sdk";

import { addressOf, refusal, ScriptedServer, unavailable } from "./server.js";

test("a refusal keeps everything that the server says about it", async (t) => {
  const server = await ScriptedServer.start(t);
  server.script.jobs.getJob = () => {
    throw refusal(Code.InvalidArgument, {
      reason: ErrorReason.REQUEST_INVALID,
      remedy: "do it right",
      fields: [{ field: "job_id", description: "is too long" }],
      metadata: { limit: "64" },
      retryAfter: { seconds: 1n, nanos: 500_000_000 },
    });
  };

  const err = await failure(server.client().getJob("x"));

  assert.equal(err.code, "invalid_argument");
  assert.equal(err.reason, "REQUEST_INVALID");
  assert.equal(err.message, "because");
  assert.equal(err.remedy, "do it right");
  assert.deepEqual(err.fields, [{ field: "job_id", description: "is too long" }]);
  assert.deepEqual(err.metadata, { limit: "64" });
  assert.equal(err.retryAfterMs, 1500);
  assert.ok(isReason(err, "REQUEST_INVALID"));
  assert.ok(!isReason(err, "UPLOAD_EXPIRED"));
  assert.ok(!isReason(new Error("REQUEST_INVALID"), "REQUEST_INVALID"));
});

test("a reason that this version doesn't know is told by its code", async (t) => {
  const server = await ScriptedServer.start(t);
  server.script.jobs.getJob = () => {
    throw refusal(Code.FailedPrecondition, { reason: 9_999 as ErrorReason, remedy: "upgrade" });
  };

  const err = await failure(server.client().getJob("x"));

  assert.equal(err.reason, "FAILED_PRECONDITION");
  assert.equal(err.code, "failed_precondition");
  assert.equal(err.remedy, "upgrade");
});

test("reasons of failed jobs have names", () => {
  assert.equal(reasonName(ErrorReason.INPUT_NOT_MEDIA), "INPUT_NOT_MEDIA");
  assert.equal(reasonName(9_999 as ErrorReason), "9999");
});

test("a server that isn't there is told apart from one that refuses", async (t) => {
  const gone = createServer();
  await new Promise<void>((resolve) => gone.listen(0, "127.0.0.1", resolve));
  const baseUrl = addressOf(gone);
  await new Promise((resolve) => gone.close(resolve));
  const retry = { firstDelayMs: 1, firstPatienceMs: 5 };

  for (const client of [
    new Tcoder({ baseUrl, retry }),
    new Tcoder({ baseUrl, retry, transport: createConnectTransport({ baseUrl, httpVersion: "1.1" }) }),
  ]) {
    const err = await failure(client.getJob("x"));
    assert.ok(isReason(err, "UNREACHABLE"), String(err.reason));
    assert.match(err.message, /ECONNREFUSED/);
    assert.notEqual(err.remedy, "");
    assert.ok(isReason(await failure(client.wait("x")), "UNREACHABLE"));
  }
  t.diagnostic("nothing listens at the address");
});

test("something else at the address is an error at once, not an absent server", async (t) => {
  let calls = 0;
  const foreign = createServer((_, res) => {
    calls++;
    res.writeHead(404).end("no");
  });
  await new Promise<void>((resolve) => foreign.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    foreign.close();
    foreign.closeAllConnections();
  });

  const err = await failure(new Tcoder({ baseUrl: addressOf(foreign) }).getJob("x"));

  assert.equal(err.reason, "UNIMPLEMENTED");
  assert.equal(calls, 1);
});

test("a call that is safe to repeat outlives an outage", async (t) => {
  const server = await ScriptedServer.start(t);
  let calls = 0;
  server.script.jobs.getJob = ({ jobId }) => {
    switch (++calls) {
      case 1:
        throw unavailable();
      case 2:
        server.breakConnections();
        throw unavailable();
      default:
        return { job: { id: jobId } };
    }
  };

  assert.equal((await server.client().getJob("x")).id, "x");
  assert.equal(calls, 3);
});

test("an outage that outlasts the patience is reported with the server's reason", async (t) => {
  const server = await ScriptedServer.start(t);
  server.script.jobs.getJob = () => {
    throw unavailable();
  };
  const client = server.client({ retry: { firstDelayMs: 1, patienceMs: 5, firstPatienceMs: 5 } });

  assert.ok(isReason(await failure(client.getJob("x")), "STATE_UNAVAILABLE"));
});

test("a retry whose answer was lost is repeated with the run that it follows", async (t) => {
  const server = await ScriptedServer.start(t);
  const runs: number[] = [];
  server.script.jobs.getJob = () => ({ job: { id: "x", run: 3 } });
  server.script.jobs.retryJob = ({ run }) => {
    runs.push(run);
    if (runs.length % 2 === 1) {
      throw unavailable();
    }

    return { job: { id: "x", run: run + 1 } };
  };
  const client = server.client();

  assert.equal((await client.retryJob("x")).run, 4);
  assert.equal((await client.retryJob("x", { run: 2 })).run, 3);
  assert.deepEqual(runs, [3, 3, 2, 2]);
});

test("a full queue is told at once, with when to try again", async (t) => {
  const server = await ScriptedServer.start(t);
  let calls = 0;
  server.script.jobs.createJob = () => {
    calls++;
    throw refusal(Code.ResourceExhausted, { reason: ErrorReason.QUEUE_FULL, retryAfter: { seconds: 7n } });
  };

  const err = await failure(server.client().createJob("film"));

  assert.ok(isReason(err, "QUEUE_FULL"));
  assert.equal(err.retryAfterMs, 7000);
  assert.equal(calls, 1);
});

test("a delete whose answer was lost is a success when the job is gone; one of an unknown job is not", async (t) => {
  const server = await ScriptedServer.start(t);
  let calls = 0;
  server.script.jobs.deleteJob = () => {
    throw ++calls === 1 ? unavailable() : refusal(Code.NotFound, { reason: ErrorReason.JOB_NOT_FOUND });
  };
  const client = server.client();

  await client.deleteJob("x");
  assert.ok(isReason(await failure(client.deleteJob("x")), "JOB_NOT_FOUND"));
});

test("an aborted signal ends a call that is being repeated, with its reason", async (t) => {
  const server = await ScriptedServer.start(t);
  const controller = new AbortController();
  const reason = new Error("enough");
  server.script.jobs.getJob = () => {
    controller.abort(reason);
    throw unavailable();
  };

  await assert.rejects(server.client().getJob("x", { signal: controller.signal }), reason);
});

test("the key goes with every call, streams included", async (t) => {
  const server = await ScriptedServer.start(t);
  server.script.jobs.getJob = () => ({ job: {} });
  server.script.jobs.watchJob = async function* () {
    yield { job: { state: JobState.COMPLETED } };
  };
  const client = server.client({ apiKey: "secret" });

  await client.getJob("x");
  await client.wait("x");

  assert.deepEqual(
    server.calls.map(({ authorization }) => authorization),
    ["Bearer secret", "Bearer secret"],
  );
});

test("lists read page after page, and only as many as are asked for", async (t) => {
  const server = await ScriptedServer.start(t);
  const next: Record<string, string> = { "": "b", b: "c", c: "" };
  let tokens: string[] = [];
  server.script.jobs.listJobs = ({ pageToken, states, reasons }) => {
    assert.deepEqual(states, [JobState.RUNNING]);
    assert.deepEqual(reasons, [ErrorReason.QUARANTINED]);
    tokens.push(pageToken);

    return { jobs: [{ id: `1${pageToken}` }, { id: `2${pageToken}` }], nextPageToken: next[pageToken]! };
  };
  server.script.jobs.listOutputObjects = ({ pageToken, output }) => ({
    objects: [{ output, url: `url${pageToken}` }],
    nextPageToken: next[pageToken]!,
  });
  const client = server.client();

  const ids: string[] = [];
  for await (const { id } of client.listJobs({ states: [JobState.RUNNING], reasons: [ErrorReason.QUARANTINED] })) {
    ids.push(id);
  }
  assert.deepEqual(ids, ["1", "2", "1b", "2b", "1c", "2c"]);
  tokens = [];
  for await (const _ of client.listJobs({ states: [JobState.RUNNING], reasons: [ErrorReason.QUARANTINED] })) {
    break;
  }
  assert.deepEqual(tokens, [""]);
  const urls: string[] = [];
  for await (const { url, output } of client.outputs("x", { output: "hls" })) {
    assert.equal(output, "hls");
    urls.push(url);
  }
  assert.deepEqual(urls, ["url", "urlb", "urlc"]);
});

test("createJob makes up a key that stays the same when it is repeated", async (t) => {
  const server = await ScriptedServer.start(t);
  const keys: string[] = [];
  server.script.jobs.createJob = ({ idempotencyKey, spec }) => {
    keys.push(idempotencyKey);
    if (keys.length === 1) {
      throw unavailable();
    }

    return { job: { spec: spec! } };
  };

  const job = await server.client().createJob("in/x", { spec: { preset: "hls", qualities: ["240p"] } });

  assert.equal(job.spec?.preset, "hls");
  assert.equal(keys.length, 2);
  assert.match(keys[0]!, /^sdk-[0-9a-f]{32}$/);
  assert.equal(keys[0], keys[1]);
});

test("an address that can't be one is refused at once", () => {
  for (const baseUrl of ["", "127.0.0.1:8080", "ftp://host", "http://", "http://a b"]) {
    assert.throws(() => new Tcoder({ baseUrl }), TypeError, baseUrl);
  }
});

/** The error that a call ends with. */
async function failure(call: Promise<unknown>): Promise<TcoderError> {
  const err = await call.then(
    () => assert.fail("the call succeeded"),
    (thrown: unknown) => thrown,
  );
  assert.ok(err instanceof TcoderError, String(err));

  return err;
}
