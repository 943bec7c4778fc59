/**
 * MD5, which S3 uses for the ETag of a part. Browsers don't bring it. It tells
 * whether a stored part is what the source holds now, and protects nothing.
 */

const shifts = [7, 12, 17, 22, 5, 9, 14, 20, 4, 11, 16, 23, 6, 10, 15, 21];
const sines = Int32Array.from({ length: 64 }, (_, i) => Math.floor(Math.abs(Math.sin(i + 1)) * 2 ** 32) | 0);
const blockBytes = 64;

/** An MD5 that is fed bit by bit. */
export class Md5 {
  readonly #state = Int32Array.of(0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476);
  readonly #words = new Int32Array(16);
  readonly #rest = new Uint8Array(blockBytes);
  #restBytes = 0;
  #totalBytes = 0;

  update(bytes: Uint8Array): void {
    this.#totalBytes += bytes.length;
    let at = 0;
    if (this.#restBytes > 0) {
      at = Math.min(blockBytes - this.#restBytes, bytes.length);
      this.#rest.set(bytes.subarray(0, at), this.#restBytes);
      this.#restBytes += at;
      if (this.#restBytes < blockBytes) {
        return;
      }
      this.#block(new DataView(this.#rest.buffer), 0);
      this.#restBytes = 0;
    }
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    for (; at + blockBytes <= bytes.length; at += blockBytes) {
      this.#block(view, at);
    }
    this.#rest.set(bytes.subarray(at));
    this.#restBytes = bytes.length - at;
  }

  /** The sum in lower-case hex. Nothing may be fed after it. */
  hex(): string {
    const bits = BigInt(this.#totalBytes) * 8n;
    const padding = new Uint8Array(((119 - (this.#totalBytes % blockBytes)) % blockBytes) + 9);
    padding[0] = 0x80;
    new DataView(padding.buffer).setBigUint64(padding.length - 8, bits, true);
    this.update(padding);
    const sum = new DataView(new ArrayBuffer(16));
    this.#state.forEach((word, i) => sum.setInt32(4 * i, word, true));

    return Array.from(new Uint8Array(sum.buffer), (byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  #block(view: DataView, at: number): void {
    const words = this.#words;
    for (let i = 0; i < 16; i++) {
      words[i] = view.getInt32(at + 4 * i, true);
    }
    let [a, b, c, d] = this.#state as unknown as [number, number, number, number];
    for (let i = 0; i < 64; i++) {
      const round = i >> 4;
      let mixed: number;
      let from: number;
      if (round === 0) {
        mixed = (b & c) | (~b & d);
        from = i;
      } else if (round === 1) {
        mixed = (d & b) | (~d & c);
        from = (5 * i + 1) & 15;
      } else if (round === 2) {
        mixed = b ^ c ^ d;
        from = (3 * i + 5) & 15;
      } else {
        mixed = c ^ (b | ~d);
        from = (7 * i) & 15;
      }
      const sum = (a + mixed + sines[i]! + words[from]!) | 0;
      const shift = shifts[4 * round + (i & 3)]!;
      [a, d, c, b] = [d, c, b, (b + ((sum << shift) | (sum >>> (32 - shift)))) | 0];
    }
    this.#state[0] = (this.#state[0]! + a) | 0;
    this.#state[1] = (this.#state[1]! + b) | 0;
    this.#state[2] = (this.#state[2]! + c) | 0;
    this.#state[3] = (this.#state[3]! + d) | 0;
  }
}
