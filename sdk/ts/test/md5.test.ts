import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";

import { Md5 } from "../src/md5.js";

test("the sum is that of the platform for every length around a block, however the bytes are cut", () => {
  const bytes = Uint8Array.from({ length: 300 }, (_, i) => (i * 31) & 255);
  for (let length = 0; length <= bytes.length; length++) {
    const want = createHash("md5").update(bytes.subarray(0, length)).digest("hex");
    for (const step of [1, 7, 63, 64, 65, 300]) {
      const sum = new Md5();
      for (let at = 0; at < length; at += step) {
        sum.update(bytes.subarray(at, Math.min(at + step, length)));
      }
      assert.equal(sum.hex(), want, `${length} bytes by ${step}`);
    }
  }
});
