// Progress on stderr: a bar with rate, time left and failures on a terminal, plain lines elsewhere.

/** What progress is drawn on: process.stderr, or a stand-in in tests. */
export interface ProgressStream {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string): unknown;
}

export interface ProgressOptions {
  /** What is counted, e.g. "images". */
  readonly noun: string;
  readonly stream?: ProgressStream;
  /** Milliseconds since some moment; for tests. */
  readonly now?: () => number;
}

/** Milliseconds between drawings of the bar; faster is unreadable. */
const barInterval = 100;
/** Milliseconds between plain lines, which stay in logs. */
const lineInterval = 5_000;
/** Fewer items than this need no progress: they are done before it is read. */
export const fewItems = 4;

/** "42 s", "3 min 05 s", "2 h 07 min" */
export function formatDuration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
  return `${Math.floor(whole / 3600)} h ${String(Math.floor((whole % 3600) / 60)).padStart(2, "0")} min`;
}

function formatRate(rate: number): string {
  return rate >= 100 ? rate.toFixed(0) : rate >= 1 ? rate.toFixed(1) : rate.toFixed(2);
}

/** Progress of a known number of items. Silent for a few items. */
export class Progress {
  readonly #total: number;
  readonly #noun: string;
  readonly #stream: ProgressStream;
  readonly #now: () => number;
  readonly #started: number;
  #startedDone = 0;
  #done = 0;
  #failed = 0;
  #lastDrawn = Number.NEGATIVE_INFINITY;
  #barVisible = false;

  constructor(total: number, options: ProgressOptions) {
    this.#total = total;
    this.#noun = options.noun;
    this.#stream = options.stream ?? process.stderr;
    this.#now = options.now ?? (() => performance.now());
    this.#started = this.#now();
    this.#lastDrawn = this.#stream.isTTY ? Number.NEGATIVE_INFINITY : this.#started;
  }

  /** Count one finished item. */
  add(failed: boolean): void {
    this.set(this.#done + (failed ? 0 : 1), this.#failed + (failed ? 1 : 0));
  }

  /** Items that were done before this progress began: they count, but not for the rate. */
  resume(done: number, failed: number): void {
    this.#done = done;
    this.#failed = failed;
    this.#startedDone = done + failed;
  }

  /** Set the counts, as far as they are known. */
  set(done: number, failed: number): void {
    this.#done = done;
    this.#failed = failed;
    const interval = this.#stream.isTTY ? barInterval : lineInterval;
    if (this.#now() - this.#lastDrawn >= interval) this.#draw();
  }

  /** Take the bar off the terminal, so that a line can be written; the next draw brings it back. */
  clear(): void {
    if (!this.#barVisible) return;
    this.#stream.write("\r\u001b[K");
    this.#barVisible = false;
  }

  /** The last word: what was done in which time. */
  finish(): void {
    if (this.#total < fewItems) return;
    this.clear();
    const seconds = (this.#now() - this.#started) / 1000;
    this.#stream.write(`${this.#counts()} in ${formatDuration(seconds)}${this.#rate(seconds)}\n`);
  }

  #counts(): string {
    const failures = this.#failed > 0 ? `, ${this.#failed} failed` : "";
    return `${this.#done + this.#failed} of ${this.#total} ${this.#noun}${failures}`;
  }

  #rate(seconds: number): string {
    const fresh = this.#done + this.#failed - this.#startedDone;
    return fresh > 0 && seconds > 0 ? `, ${formatRate(fresh / seconds)} ${this.#noun}/s` : "";
  }

  #draw(): void {
    if (this.#total < fewItems) return;
    this.#lastDrawn = this.#now();
    const seconds = (this.#now() - this.#started) / 1000;
    const finished = this.#done + this.#failed;
    const fresh = finished - this.#startedDone;
    const left =
      fresh > 0 && finished < this.#total
        ? `, ${formatDuration(((this.#total - finished) * seconds) / fresh)} left`
        : "";
    const text = `${this.#counts()}${this.#rate(seconds)}${left}`;
    if (!this.#stream.isTTY) {
      this.#stream.write(`${text}\n`);
      return;
    }
    const width = Math.min(30, (this.#stream.columns ?? 80) - text.length - 4);
    const filled = Math.round((Math.max(0, width) * finished) / Math.max(1, this.#total));
    const bar = width >= 8 ? `[${"#".repeat(filled)}${"-".repeat(width - filled)}] ` : "";
    this.#stream.write(`\r\u001b[K${bar}${text}`.slice(0, (this.#stream.columns ?? 80) + 3));
    this.#barVisible = true;
  }
}
