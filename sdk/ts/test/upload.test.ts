import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { openAsBlob } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";

import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { ErrorReason, isReason, TcoderError, type Upload, UploadState } from "@tcoder/sdk";

import { drain, etagOf, joined, refusal, ScriptedServer, serveUploads, Store } from "./server.js";

/** A source without repetition, so that swapped bytes are noticed. */
function noise(sizeBytes: number): Buffer<ArrayBuffer> {
  const blocks = Array.from({ length: Math.ceil(sizeBytes / 32) }, (_, i) =>
    createHash("sha256").update(String(i)).digest(),
  );

  return Buffer.concat(blocks).subarray(0, sizeBytes) as Buffer<ArrayBuffer>;
}

async function setup(t: TestContext, partSizeBytes?: number) {
  const server = await ScriptedServer.start(t);
  const store = await Store.start(t);
  serveUploads(server, store, partSizeBytes);

  return { server, store };
}

/** A callback for progress, and a check that it rose to the total. */
function watchProgress() {
  const told: number[] = [];

  return {
    onProgress: (doneBytes: number, totalBytes: number) => {
      assert.ok(doneBytes > (told.at(-1) ?? -1) && doneBytes <= totalBytes);
      told.push(doneBytes);
    },
    told,
  };
}

async function* inChunks(bytes: Uint8Array, chunkBytes: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += chunkBytes) {
    yield bytes.subarray(at, at + chunkBytes);
  }
}

test("a small source goes in one request, straight to the store, without the API key", async (t) => {
  const { server, store } = await setup(t);
  const bytes = noise(1_000_000);
  const { onProgress, told } = watchProgress();
  let opened: Upload | undefined;

  const { upload, job } = await server.client({ apiKey: "secret" }).upload(new File([bytes], "clip.mp4"), {
    onProgress,
    onOpen: (upload) => (opened = upload),
  });

  assert.equal(job.id, "j");
  assert.equal(opened?.jobId, "j");
  assert.equal(upload.filename, "clip.mp4");
  assert.deepEqual(store.objects.get("whole"), bytes);
  assert.equal(store.headers[0]?.authorization, undefined);
  assert.equal(store.headers[0]?.["content-length"], "1000000");
  assert.equal(store.headers[0]?.["content-type"], "video/mp4");
  assert.equal(told.at(-1), bytes.length);
  assert.ok(told.length > 3, "progress comes as bytes are sent");
});

test("every kind of source arrives whole, in one request and in parts", async (t) => {
  const bytes = noise(495_001);
  const dir = await mkdtemp(join(tmpdir(), "tcoder-sdk-"));
  t.after(() => rm(dir, { recursive: true }));
  const path = join(dir, "clip.mp4");
  await writeFile(path, bytes);
  const sources = {
    bytes: () => bytes,
    blob: () => new Blob([bytes]),
    file: () => openAsBlob(path),
    stream: () => ({ stream: new Blob([bytes]).stream() as ReadableStream<Uint8Array>, size: bytes.length }),
    iterable: () => ({ stream: inChunks(bytes, 7_001), size: bytes.length }),
    longer: () => ({ stream: inChunks(noise(600_000), 100_000), size: bytes.length }),
  };
  for (const [kind, source] of Object.entries(sources)) {
    for (const partSizeBytes of [undefined, 10_000]) {
      const { server, store } = await setup(t, partSizeBytes);
      const { onProgress, told } = watchProgress();

      await server.client().upload(await source(), { filename: "clip.mp4", onProgress });

      const arrived = partSizeBytes === undefined ? store.objects.get("whole")! : joined(store, 50);
      assert.ok(bytes.equals(arrived), `${kind} in parts of ${partSizeBytes}`);
      assert.equal(told.at(-1), bytes.length);
    }
  }
});

test("a store that fails now and then gets the same bytes again", async (t) => {
  const { server, store } = await setup(t, 10_000);
  let requests = 0;
  store.intercept = async (req, res) => {
    switch (++requests % 4) {
      case 1:
        await drain(req);
        res.writeHead(503).end();

        return true;
      case 2:
        req.once("data", () => res.destroy()); // the connection breaks in the middle

        return true;
      default:
        return false;
    }
  };
  for (const source of [noise(95_001), { stream: inChunks(noise(95_001), 999), size: 95_001 }]) {
    const { onProgress, told } = watchProgress();

    await server.client().upload(source, { filename: "clip.mp4", onProgress });

    assert.ok(noise(95_001).equals(joined(store, 10)));
    assert.equal(told.at(-1), 95_001);
  }
});

test("requests that have expired are signed again, whole sources and parts alike", async (t) => {
  for (const partSizeBytes of [undefined, 10_000]) {
    const { server, store } = await setup(t, partSizeBytes);
    const { createUpload } = server.script.uploads;
    const keys: string[] = [];
    server.script.uploads.createUpload = async (request, context) => {
      const answer = await createUpload!(request, context);
      keys.push(request.idempotencyKey);
      if (keys.length === 1) {
        const [first, second] = answer.parts ?? [];
        for (const signed of [answer.put, first?.request, second?.request]) {
          if (signed !== undefined) {
            store.expire(signed as Parameters<Store["expire"]>[0]);
          }
        }
        if (second !== undefined) {
          second.request!.expiresAt = timestampFromMs(Date.now() - 60_000);
        }
      }

      return answer;
    };
    const bytes = noise(25_000);

    await server.client().upload(bytes, { filename: "clip.mp4" });

    assert.match(keys[0]!, /^sdk-/);
    if (partSizeBytes === undefined) {
      assert.deepEqual(keys, [keys[0], keys[0]]);
      assert.deepEqual(store.objects.get("whole"), bytes);
    } else {
      assert.deepEqual(joined(store, 3), bytes);
    }
  }
});

test("a store that means its refusal ends the upload with a typed error that holds no URL", async (t) => {
  const { server, store } = await setup(t, 10_000);
  store.intercept = async (req, res) => {
    await drain(req);
    res.writeHead(403).end("<?xml version='1.0'?><Error><Code>SignatureDoesNotMatch</Code></Error>");

    return true;
  };

  const err = await server
    .client()
    .upload(noise(50_000), { filename: "clip.mp4" })
    .catch((thrown: unknown) => thrown);

  assert.ok(isReason(err, "OBJECT_STORE_UNAVAILABLE"));
  assert.match(err.message, /403 SignatureDoesNotMatch/);
  assert.doesNotMatch(JSON.stringify([err, err.message, err.stack]), /token=/);
  assert.ok(store.seen.length < 20);
});

test("a store that can't be reached is a typed error that holds no URL", async (t) => {
  const { server, store } = await setup(t);
  store.intercept = (_, res) => {
    res.destroy();

    return true;
  };
  const client = server.client({ retry: { firstDelayMs: 1, patienceMs: 5, firstPatienceMs: 5 } });

  const err = await client.upload(noise(50_000), { filename: "clip.mp4" }).catch((thrown: unknown) => thrown);

  assert.ok(isReason(err, "OBJECT_STORE_UNAVAILABLE"), String(err));
  assert.doesNotMatch(JSON.stringify([err, err.message, err.stack]), /token=/);
});

test("a call with the key of an earlier one sends what the store lacks and what is no longer the source's", async (t) => {
  const bytes = noise(45_000);
  for (const source of [bytes, new Blob([bytes]), { stream: inChunks(bytes, 3_333), size: bytes.length }]) {
    const { server, store } = await setup(t, 10_000);
    const held = [
      [1, bytes.subarray(0, 10_000)],
      [2, bytes.subarray(1, 10_000)], // too short
      [3, bytes.subarray(10_000, 20_000)], // another source's
      [5, bytes.subarray(40_000)], // the short last one
    ] as const;
    held.forEach(([number, body]) => store.objects.set(`part-${number}`, body));
    server.script.uploads.getUpload = () => ({
      upload: {},
      parts: held.map(([partNumber, body]) => ({
        partNumber,
        etag: etagOf(body),
        sizeBytes: BigInt(body.length),
      })),
    });
    const { onProgress, told } = watchProgress();

    await server.client().upload(source, { filename: "clip.mp4", idempotencyKey: "mine", onProgress });

    assert.deepEqual(joined(store, 5), bytes);
    assert.deepEqual(store.seen.toSorted(), ["PUT part-2", "PUT part-3", "PUT part-4"]);
    assert.equal(told.at(-1), bytes.length);
  }
});

test("an upload that is complete already gives its job and sends nothing", async (t) => {
  const { server, store } = await setup(t);
  server.script.uploads.createUpload = () => ({ upload: { id: "u", jobId: "j", state: UploadState.COMPLETED } });

  const { job } = await server.client().upload(noise(1), { filename: "clip.mp4", idempotencyKey: "mine" });

  assert.equal(job.id, "j");
  assert.deepEqual(store.seen, []);
});

test("a PUT whose answer was lost is refused the second time because the object is there; that is a success", async (t) => {
  const { server, store } = await setup(t);
  let requests = 0;
  store.intercept = async (req, res) => {
    await drain(req);
    if (++requests === 1) {
      res.destroy();
    } else {
      res.writeHead(412).end();
    }

    return true;
  };

  await server.client().upload(noise(4), { filename: "clip.mp4" });

  assert.equal(requests, 2);
});

test("a store that hides ETags is asked itself when the upload completes", async (t) => {
  const { server, store } = await setup(t, 10_000);
  store.intercept = async (req, res) => {
    await drain(req);
    res.end();

    return true;
  };
  const { completeUpload } = server.script.uploads;
  let sent = -1;
  server.script.uploads.completeUpload = (request, context) => {
    sent = request.parts.length;

    return completeUpload!(request, context);
  };

  await server.client().upload(noise(25_000), { filename: "clip.mp4" });

  assert.equal(sent, 0);
});

test("what can't be a video is refused before any call", async (t) => {
  const { server } = await setup(t);
  const stream = () => inChunks(noise(10), 10);

  for (const source of [
    new Blob([]),
    new Uint8Array(),
    { stream: stream(), size: 0 },
    { stream: stream(), size: 1.5 },
    { stream: stream(), size: Number.NaN },
  ]) {
    await assert.rejects(server.client().upload(source, { filename: "clip.mp4" }), (err) =>
      isReason(err, "SIZE_INVALID"),
    );
  }
  assert.equal(server.calls.length, 0);
});

test("a source that is shorter than declared, changes or breaks fails at once, not as a bad network", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "tcoder-sdk-"));
  t.after(() => rm(dir, { recursive: true }));
  const path = join(dir, "clip.mp4");
  await writeFile(path, noise(40_000));
  const changed = await openAsBlob(path);
  await writeFile(path, noise(35_000));
  const broken = async function* () {
    yield noise(10);
    throw new Error("disk failed");
  };
  for (const partSizeBytes of [undefined, 10_000]) {
    const { server } = await setup(t, partSizeBytes);
    const upload = (source: Parameters<ReturnType<ScriptedServer["client"]>["upload"]>[0]) =>
      server.client().upload(source, { filename: "clip.mp4" });

    await assert.rejects(upload({ stream: inChunks(noise(35_000), 100), size: 40_000 }), (err) =>
      isReason(err, "SIZE_INVALID"),
    );
    await assert.rejects(upload(changed), (err) => isReason(err, "REQUEST_INVALID"));
    await assert.rejects(
      upload({ stream: broken(), size: 40_000 }),
      (err) => err instanceof TcoderError && (err.cause as Error).message === "disk failed",
    );
  }
});

test("a refusal to open the upload reaches the caller as it is", async (t) => {
  const { server } = await setup(t);
  server.script.uploads.createUpload = () => {
    throw refusal(Code.InvalidArgument, { reason: ErrorReason.UNKNOWN_PRESET });
  };

  await assert.rejects(server.client().upload(noise(1), { filename: "clip.mp4" }), (err) =>
    isReason(err, "UNKNOWN_PRESET"),
  );
});

test("an aborted signal ends an upload in the middle of its bytes, with its reason", async (t) => {
  const reason = new Error("enough");
  for (const partSizeBytes of [undefined, 10_000]) {
    const { server, store } = await setup(t, partSizeBytes);
    const controller = new AbortController();
    store.intercept = async (req) => {
      await drain(req);
      controller.abort(reason);

      return true; // and never answers
    };

    await assert.rejects(
      server.client().upload(noise(50_000), { filename: "clip.mp4", signal: controller.signal }),
      reason,
    );
  }
});

test("an aborted signal ends an upload whose stream stands still, and lets the stream go", async (t) => {
  for (const partSizeBytes of [undefined, 10_000]) {
    const { server } = await setup(t, partSizeBytes);
    const controller = new AbortController();
    let canceled = false;
    const stream = new ReadableStream<Uint8Array>({
      pull: () => controller.abort(),
      cancel: () => {
        canceled = true;
      },
    });

    await assert.rejects(
      server.client().upload({ stream, size: 50_000 }, { filename: "clip.mp4", signal: controller.signal }),
      { name: "AbortError" },
    );
    assert.ok(canceled);
  }
});

test("an upload that has ended tells no progress and leaves no timer behind", async (t) => {
  const timers = () => process.getActiveResourcesInfo().filter((kind) => kind === "Timeout").length;
  const { server, store } = await setup(t);
  const running = timers();
  const controller = new AbortController();
  let told = 0;
  const gone = new Promise<void>((resolve) => {
    store.intercept = (req) => {
      req.on("close", resolve).resume();

      return true; // and never answers
    };
  });

  const upload = server.client().upload(new Blob([noise(10_000_000)]), {
    filename: "clip.mp4",
    signal: controller.signal,
    onProgress: (doneBytes) => {
      told++;
      if (doneBytes > 0) {
        controller.abort();
      }
    },
  });

  await assert.rejects(upload, { name: "AbortError" });
  await gone;
  assert.equal(told, 2);
  assert.equal(timers(), running);
});

test("an error that the caller's own callback throws ends the upload", async (t) => {
  const { server } = await setup(t);
  const mine = new Error("mine");
  const onProgress = (doneBytes: number) => {
    if (doneBytes > 0) {
      throw mine;
    }
  };

  await assert.rejects(server.client().upload(noise(4), { filename: "clip.mp4", onProgress }), mine);
});
