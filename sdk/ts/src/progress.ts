/** Called as bytes move; what it is told never falls. */
export type OnProgress = (doneBytes: number, totalBytes: number) => void;

/** Adds up what several transfers have moved, and tells it. */
export class ProgressSum {
  readonly #totalBytes: number;
  readonly #tell: OnProgress | undefined;
  readonly #parts = new Map<number, number>();
  #sum = 0;
  #told = -1;

  constructor(totalBytes: number, tell: OnProgress | undefined) {
    this.#totalBytes = totalBytes;
    this.#tell = tell;
  }

  /** Sets how much of one part is moved; that may fall when it is sent again. */
  set(part: number, bytes: number): void {
    this.#sum += bytes - (this.#parts.get(part) ?? 0);
    this.#parts.set(part, bytes);
    this.#report(this.#sum);
  }

  finish(): void {
    this.#report(this.#totalBytes);
  }

  #report(sum: number): void {
    if (this.#tell !== undefined && sum > this.#told) {
      this.#told = sum;
      this.#tell(sum, this.#totalBytes);
    }
  }
}
