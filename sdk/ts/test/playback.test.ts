import assert from "node:assert/strict";
import type { Server } from "node:http";
import { after, before, describe, test } from "node:test";

import { durationMs } from "@bufbuild/protobuf/wkt";
import { CopyPolicy, type Job, JobEventType, JobState, Tcoder, type UploadOptions } from "@tcoder/sdk";
import type { Browser } from "playwright-core";

import { launchBrowser, servePages } from "./browser.js";
import type { Played, PlayOptions } from "./player.js";
import { addressOf } from "./server.js";
import { binary, loopClip, notTested, readClip, Stack } from "./tcoder.js";

const bin = binary();
const skip = notTested(bin);

/** Some segments. */
const shortSeconds = 14;
/** So many tasks that a pool which stops in the middle has left some. */
const longSeconds = 63;
const preset = "hls-adaptive";
const machines = 2;
/** Of the film. */
const frameSeconds = 1 / 24;

describe("played in a browser by hls.js", { skip, timeout: 300_000 }, () => {
  let pages: Server;
  let stack: Stack;
  let client: Tcoder;
  let browser: Browser;

  before(async () => {
    pages = await servePages("player.js", await readClip());
    stack = await Stack.start(bin!, addressOf(pages));
    client = new Tcoder({ baseUrl: stack.url });
    browser = await launchBrowser();
  });

  after(async () => {
    pages?.close();
    pages?.closeAllConnections();
    await browser?.close();
    await stack?.stop();
  });

  /** Opens the page, which says itself when a picture moves. */
  async function open() {
    const page = await browser.newPage();
    await page.goto(addressOf(pages));
    assert.ok(await page.evaluate(() => globalThis.player.supported()), "this browser plays no H.264 and AAC");
    const play = ({ id }: Job, options: PlayOptions): Promise<Played> =>
      page.evaluate(([url, jobId, how]) => globalThis.player.play(url, jobId, how), [stack.url, id, options] as const);

    return { play, began: () => page.waitForFunction(() => globalThis.player.began, undefined, { timeout: 60_000 }) };
  }

  async function upload(seconds: number, spec: NonNullable<UploadOptions["spec"]>): Promise<Job> {
    return (await client.upload(await loopClip(seconds), { filename: "film.mp4", spec })).job;
  }

  test("a film of one task plays to its end, also across its renditions", async () => {
    await client.updatePool({ machineLimit: 1 });
    const { id } = await upload(shortSeconds, { preset, qualities: ["720p", "240p"] });
    const job = await client.wait(id);
    assert.equal(JobState[job.state], "COMPLETED", stack.log());
    const played = await (await open()).play(job, { rate: 2, changing: true });
    assertWhole(played, job);
    assert.ok(played.shown.length > 1, `shown were ${played.shown.join()}`);
  });

  test("a film of many tasks begins while it is made, and plays to its end", async () => {
    await client.updatePool({ machineLimit: machines });
    // Without the source's own picture, whose segments may be long: a player looks as often for more as they may be.
    const job = await upload(longSeconds, { preset, qualities: ["240p"], copy: CopyPolicy.NEVER });
    for await (const { event } of client.watch(job.id)) {
      if (event?.type === JobEventType.PLAYABLE) {
        break;
      }
    }
    // Nobody finishes the rest before the picture moves.
    await client.updatePool({ machineLimit: 0 });
    for (const { id } of await client.machines()) {
      await client.drainMachine(id);
    }

    const { play, began } = await open();
    const playing = play(job, { rate: 8 });
    await Promise.race([began(), playing]);
    await client.updatePool({ machineLimit: machines });
    const growing = await playing;
    const made = await client.wait(job.id);
    assert.equal(JobState[made.state], "COMPLETED", stack.log());
    assert.equal(growing.jobState, "RUNNING");
    assertWhole(growing, made);
    // Sound and picture begin together: the browser reckons with the delay that reordered pictures have.
    assert.ok(growing.buffered[0]![0] < frameSeconds);
    assert.ok((made.plan?.outputs[0]?.chunks.length ?? 0) > 1, "it was made in chunks");
  });
});

/** A stream played from its start to its end, each segment in its turn, with picture and sound and no hole. */
function assertWhole(played: Played, job: Job): void {
  const seconds = durationMs(job.outputs[0]!.duration!) / 1000;
  const { end, complaints, taken, segments, buffered, positionSeconds, durationSeconds } = played;
  assert.deepEqual([end, complaints], ["ended", []], JSON.stringify(played));
  const each = [...new Set(taken)].sort((a, b) => a - b);
  assert.deepEqual(
    each,
    Array.from({ length: segments }, (_, i) => i),
  );
  assert.ok(segments > 1);
  assert.equal(buffered.length, 1, `a hole: ${JSON.stringify(buffered)}`);
  for (const [what, is, want] of [
    ["the last picture", buffered[0]![1], seconds],
    ["where it stopped", positionSeconds, seconds],
    ["its length", durationSeconds, seconds],
  ] as const) {
    assert.ok(Math.abs(is - want) <= frameSeconds, `${what} is at ${is} s, not at ${want} s`);
  }
}
