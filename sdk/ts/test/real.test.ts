import assert from "node:assert/strict";
import type { Server } from "node:http";
import { after, before, describe, test } from "node:test";

import {
  type Failure,
  isReason,
  JobEventType,
  JobState,
  MachineState,
  OutputKind,
  type PoolUpdate,
  type Reason,
  reasonName,
  Tcoder,
} from "@tcoder/sdk";

import { launchBrowser, servePages } from "./browser.js";
import { addressOf } from "./server.js";
import { binary, notTested, Proxy, readClip, Stack } from "./tcoder.js";

const bin = binary();
const skip = notTested(bin);

const spec = { preset: "hls", qualities: ["240p"] };

describe("against a real server", { skip, timeout: 300_000 }, () => {
  let pages: Server;
  let foreignPages: Server;
  let stack: Stack;
  let client: Tcoder;
  let clip: Buffer<ArrayBuffer>;

  before(async () => {
    clip = await readClip();
    pages = await servePages("page.js", clip);
    foreignPages = await servePages("page.js", clip);
    stack = await Stack.start(bin!, addressOf(pages));
    client = new Tcoder({ baseUrl: stack.url });
  });

  after(async () => {
    for (const server of [pages, foreignPages]) {
      server?.close();
      server?.closeAllConnections();
    }
    await stack?.stop();
    if (stack !== undefined) {
      await rejected(new Tcoder({ baseUrl: stack.url, retry: { firstPatienceMs: 1 } }).getJob("x"), "UNREACHABLE");
    }
  });

  test("a film becomes a stream; cut connections cost no event; the outputs can be read", async () => {
    const proxy = await Proxy.start(stack.url);
    const behindProxy = new Tcoder({ baseUrl: proxy.url, retry: { firstDelayMs: 10, maxDelayMs: 50 } });
    const progress: number[] = [];

    const { job, upload } = await behindProxy.upload(new File([clip], "sintel.mp4"), {
      contentType: "video/mp4",
      spec,
      labels: { from: "sdk" },
      onProgress: (doneBytes) => progress.push(doneBytes),
    });
    const types: JobEventType[] = [];
    let next = job.sequence + 1n;
    let last = job;
    for await (const update of behindProxy.watch(job.id, { afterSequence: job.sequence })) {
      last = update.job;
      if (update.event !== undefined) {
        assert.equal(update.event.sequence, next++);
        types.push(update.event.type);
        proxy.cut();
      }
    }
    proxy.stop();

    assert.equal(upload.jobId, job.id);
    assert.equal(progress.at(-1), clip.length);
    assert.equal(JobState[last.state], "COMPLETED", failureText(last.failure) + stack.log());
    assert.equal(last.sequence, next - 1n);
    assert.equal(types.at(-1), JobEventType.COMPLETED);
    assert.ok(types.includes(JobEventType.PLANNED));
    assert.deepEqual(last.labels, { from: "sdk" });
    assert.equal(last.progress?.percent, 100);
    const [output] = last.outputs;
    assert.equal(output?.kind, OutputKind.HLS);
    const video = output.renditions.filter(({ height }) => height > 0);
    assert.deepEqual(
      video.map(({ width, height }) => [width, height]),
      [[426, 240]],
    );

    const names: string[] = [];
    for await (const { object, url } of client.outputs(job.id)) {
      const response = await fetch(url);
      assert.equal(response.status, 200);
      const body = new Uint8Array(await response.arrayBuffer());
      assert.equal(BigInt(body.length), object!.sizeBytes);
      if (object!.name === output.entry) {
        assert.match(new TextDecoder().decode(body), /^#EXTM3U[^]*RESOLUTION=426x240/);
      }
      names.push(object!.name);
    }
    assert.ok(names.includes(output.entry));
    assert.ok(names.some((name) => name.endsWith(".m4s")));

    // A watch of a job that has ended tells its end.
    assert.equal((await client.wait(job.id)).state, JobState.COMPLETED);
    assert.equal((await client.getJob(job.id)).id, job.id);
    const listed: string[] = [];
    for await (const { id } of client.listJobs({ states: [JobState.COMPLETED] })) {
      listed.push(id);
    }
    assert.deepEqual(listed, [job.id]);
    await rejected(client.retryJob(job.id), "JOB_TERMINAL");
    await rejected(client.cancelJob(job.id), "JOB_TERMINAL");
    await client.deleteJob(job.id);
    await rejected(client.getJob(job.id), "JOB_NOT_FOUND");
  });

  test("bad input gets typed errors, at once where it can be known at once", async () => {
    const file = (name = "clip.mp4") => new File(["x"], name);

    await rejected(client.upload(file(), { spec: { preset: "nosuch" } }), "UNKNOWN_PRESET");
    await rejected(client.upload(file(), { spec: { qualities: ["333p"] } }), "UNKNOWN_QUALITY");
    await rejected(client.upload(file("a/b.mp4")), "FILENAME_INVALID");
    await rejected(client.upload(new File([], "clip.mp4")), "SIZE_INVALID");
    await rejected(client.getJob("nosuchjob"), "JOB_NOT_FOUND");
    await rejected(client.wait("nosuchjob"), "JOB_NOT_FOUND");
    await rejected(client.deleteJob("nosuchjob"), "JOB_NOT_FOUND");
    await rejected(client.getUpload("nosuchupload"), "UPLOAD_NOT_FOUND");
    await rejected(client.createJob("nosuch/object"), "OBJECT_NOT_FOUND");
    const invalid = await rejected(client.upload(file(), { priority: 101 }), "REQUEST_INVALID");
    assert.equal(invalid.fields[0]?.field, "priority");
    assert.equal(invalid.code, "invalid_argument");

    const text = new File(["This is no film.\n".repeat(100)], "text.mp4");
    const { job } = await client.upload(text, { idempotencyKey: "text" });
    const failed = await client.wait(job.id);
    assert.equal(JobState[failed.state], "FAILED");
    assert.equal(failureText(failed.failure), "INPUT_NOT_MEDIA");
    assert.equal((await client.upload(text, { idempotencyKey: "text" })).job.id, job.id);
    await rejected(client.upload(file(), { idempotencyKey: "text" }), "IDEMPOTENCY_KEY_REUSED");
    const presets = await client.presets();
    assert.ok(presets.some(({ name }) => name === "hls-adaptive"));
  });

  test("a large source goes in parts, and goes on where an earlier call was cut off", async () => {
    const partBytes = 16 << 20;
    const source = new Blob(Array<Uint8Array<ArrayBuffer>>(70).fill(new Uint8Array(1 << 20).fill(7)));
    const options = { filename: "large.mp4", idempotencyKey: "large", parallel: 1 };
    const controller = new AbortController();

    await assert.rejects(
      client.upload(source, {
        ...options,
        signal: controller.signal,
        onProgress: (doneBytes) => {
          if (doneBytes > 2.5 * partBytes) {
            controller.abort();
          }
        },
      }),
      { name: "AbortError" },
    );
    let uploadId = "";
    const sent: number[] = [];
    const { job } = await client.upload(source, {
      ...options,
      onOpen: ({ id }) => (uploadId = id),
      onProgress: (doneBytes) => sent.push(doneBytes),
    });

    const { upload } = await client.getUpload(uploadId);
    assert.equal(upload.partSizeBytes, BigInt(partBytes));
    assert.equal(upload.partCount, 5);
    assert.deepEqual(sent.slice(0, 2), [partBytes, 2 * partBytes], "the parts that were stored count at once");
    assert.equal(sent.at(-1), source.size);
    assert.equal(failureText((await client.wait(job.id)).failure), "INPUT_NOT_MEDIA");
  });

  test("a pool is seen, set and drained while it runs", async () => {
    const proxy = await Proxy.start(stack.url);
    const behindProxy = new Tcoder({ baseUrl: proxy.url, retry: { firstDelayMs: 10, maxDelayMs: 50 } });
    const before = await client.pool();
    assert.equal(before.provider, "process");
    const see = async (what: string, is: (update: PoolUpdate) => boolean): Promise<PoolUpdate> => {
      for await (const update of behindProxy.watchPool({ signal: AbortSignal.timeout(60_000) })) {
        if (is(update)) {
          return update;
        }
        proxy.cut();
      }

      return assert.fail(`never seen: ${what}`);
    };

    const settings = await client.updatePool({ machineLimit: 2, minWarm: 1, idleThreshold: { seconds: 300n } });
    assert.equal(settings.machineLimit, 2);
    assert.equal(settings.idleThreshold?.seconds, 300n);
    const running = ({ machines }: PoolUpdate) => machines.find(({ state }) => state === MachineState.RUNNING);
    const { id } = running(await see("a warm machine", (update) => running(update) !== undefined))!;
    assert.ok((await client.machines()).some((machine) => machine.id === id));
    assert.ok((await client.workers()).some(({ machineId }) => machineId === id));
    assert.equal((await client.drainMachine(id)).state, MachineState.DRAINING);
    await see("another warm machine in its place", (update) => (running(update)?.id ?? id) !== id);

    await client.updatePool({ machineLimit: before.settings!.machineLimit, minWarm: 0 });
    proxy.stop();
    await rejected(client.drainMachine("nosuch"), "MACHINE_NOT_FOUND");
    await rejected(client.drainWorker("nosuch"), "WORKER_NOT_FOUND");
    const refused = await rejected(client.updatePool({ regions: { names: ["fra"] } }), "REQUEST_INVALID");
    assert.equal(refused.fields[0]?.field, "regions.names[0]");
  });

  test("a page in a browser uploads, watches and reads; a page of another origin is refused", async () => {
    const browser = await launchBrowser();
    try {
      const page = await browser.newPage();
      await page.goto(addressOf(pages));

      const film = await page.evaluate((url) => globalThis.page.transcode(url, "/clip.mp4", 1), stack.url);

      assert.equal(film.state, "COMPLETED", film.failure);
      assert.equal(film.progress.at(-1), clip.length);
      assert.deepEqual(
        film.sequences,
        film.sequences.map((_, i) => film.lastSequence - film.sequences.length + 1 + i),
      );
      assert.ok(film.sequences.length > 3);
      assert.equal(film.percent, 100);
      assert.match(film.playlist, /^#EXTM3U[^]*RESOLUTION=426x240/);

      // 70 copies of the film in one file, which is sent in parts.
      const large = await page.evaluate((url) => globalThis.page.transcode(url, "/clip.mp4", 70), stack.url);
      assert.equal(large.progress.at(-1), 70 * clip.length);
      // How often the browser tells of bytes depends on its speed; each of the 5 parts is told at least once.
      assert.ok(large.progress.length >= 5, "progress comes as parts are sent");
      assert.ok((large.progress[0] ?? 0) < 70 * clip.length, "progress comes before the end");
      assert.deepEqual(large.progress, large.progress.toSorted((a, b) => a - b), "progress never falls");

      // A lost connection and a refusal on the way to the store cost a try each.
      const bucket = "**/tcoder-in/**";
      let puts = 0;
      await page.route(bucket, async (route) => {
        switch (++puts) {
          case 1:
            return route.abort("connectionreset");
          case 2:
            return route.fulfill({ status: 403, headers: { "Access-Control-Allow-Origin": "*" } });
          default:
            return route.continue();
        }
      });
      const script = await page.evaluate((url) => globalThis.page.transcode(url, "/page.js", 1), stack.url);
      assert.equal(script.failure, "INPUT_NOT_MEDIA");
      assert.equal(puts, 3);
      await page.unroute(bucket);
      await page.route(bucket, () => page.evaluate(() => globalThis.page.abort())); // and no answer
      assert.equal(await page.evaluate((url) => globalThis.page.uploadUntilAborted(url), stack.url), "AbortError");
      await page.unroute(bucket);

      assert.deepEqual(await page.evaluate((url) => globalThis.page.reasons(url), stack.url), [
        "JOB_NOT_FOUND",
        "FILENAME_INVALID",
      ]);
      await page.goto(addressOf(foreignPages));
      for (const reason of await page.evaluate((url) => globalThis.page.reasons(url), stack.url)) {
        assert.match(reason, /^UNREACHABLE: .*allows the origin of this page/);
      }
    } finally {
      await browser.close();
    }
  });
});

async function rejected(call: Promise<unknown>, reason: Reason) {
  const err = await call.then(
    () => assert.fail(`want ${reason}, but the call succeeded`),
    (thrown: unknown) => thrown,
  );
  assert.ok(isReason(err, reason), `want ${reason}: ${String(err)}`);

  return err;
}

function failureText(failure: Failure | undefined): string {
  return failure === undefined ? "" : reasonName(failure.reason);
}
