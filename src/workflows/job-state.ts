// The state of a job between two events: pure functions over JobCarried, so that job.ts reads as a story.

import {
  type ChunkInFlight,
  type ChunkReport,
  chunksOnPage,
  type IndexEntry,
  type JobCarried,
  type JobInput,
  type JobProgress,
  type JobRecord,
  type JobState,
  type ManifestRef,
  type OpenPage,
} from "../messages/job.ts";
import { addTimings } from "./timings.ts";

/** A carried state that may be changed in place; the workflow has one. */
export type State = { -readonly [Name in keyof JobCarried]: JobCarried[Name] };

/** Reports that the rate is taken over. */
const recentReports = 12;

export function freshState(now: number): State {
  return {
    manifest: null,
    next: 0,
    done: 0,
    failed: 0,
    reencoded: 0,
    chunksFinished: 0,
    inFlight: [],
    openPages: [],
    head: null,
    stages: {},
    recent: [],
    startedAt: now,
    paused: false,
    canceling: false,
    problem: null,
  };
}

export function chunksOf(manifest: ManifestRef, chunkSize: number): number {
  return Math.ceil(manifest.items / chunkSize);
}

export function hasNext({ manifest, next }: State, chunkSize: number): boolean {
  return manifest !== null && next < chunksOf(manifest, chunkSize);
}

/** Put the next chunk in flight. */
export function takeNext(state: State, now: number): ChunkInFlight {
  const taken = { chunk: state.next, heardAt: now, restarts: 0 };
  state.next += 1;
  state.inFlight = [...state.inFlight, taken];
  return taken;
}

/** Items first … first+count-1 of the manifest are those of a chunk. */
export function itemsOf(manifest: ManifestRef, chunkSize: number, chunk: number): { first: number; count: number } {
  const first = chunk * chunkSize;
  return { first, count: Math.min(chunkSize, manifest.items - first) };
}

/** Take in a report. One about a chunk that is not in flight (a second one, or of another attempt) changes nothing. */
export function takeReport(state: State, attempt: number, report: ChunkReport, now: number): boolean {
  if (report.attempt !== attempt || !state.inFlight.some(({ chunk }) => chunk === report.chunk)) return false;
  if (report.state === "canceled" && !state.canceling && state.problem === null) {
    // Somebody cancelled the chunk, not the job: it is lost, and asked about at once.
    state.inFlight = state.inFlight.map((other) => (other.chunk === report.chunk ? { ...other, heardAt: 0 } : other));
    return false;
  }
  state.inFlight = state.inFlight.filter(({ chunk }) => chunk !== report.chunk);
  state.chunksFinished += 1;
  if (report.state === "failed") state.problem ??= report.error;
  if (report.state !== "done") return true;
  const { chunk, result, done, failed } = report;
  state.done += done;
  state.failed += failed;
  state.reencoded += report.reencoded;
  if (report.firstFailure !== undefined) state.firstFailure ??= report.firstFailure;
  state.stages = addTimings(state.stages, report.stages);
  state.recent = [...state.recent, { at: now, items: done + failed }].slice(-recentReports);
  state.openPages = addEntry(state.openPages, { chunk, result, done, failed });
  return true;
}

function addEntry(pages: readonly OpenPage[], entry: IndexEntry): OpenPage[] {
  const page = Math.floor(entry.chunk / chunksOnPage);
  const others = pages.filter((open) => open.page !== page);
  const entries = pages.find((open) => open.page === page)?.entries ?? [];
  return [...others, { page, entries: [...entries, entry].sort((a, b) => a.chunk - b.chunk) }];
}

/** Pages that wait for no more chunks; at the end of a job those that lack some as well. */
export function pagesToFold(state: State, atEnd: boolean): OpenPage[] {
  return state.openPages
    .filter(({ entries }) => atEnd || entries.length === chunksOnPage)
    .sort((a, b) => a.page - b.page);
}

/** Chunks that nobody has heard of for so long. */
export function silentChunks(state: State, now: number, silentMs: number): ChunkInFlight[] {
  return state.inFlight.filter(({ heardAt }) => now - heardAt >= silentMs);
}

export function stateName(state: State, chunkSize: number): JobState {
  const { manifest, problem, done, failed } = state;
  const idle = state.inFlight.length === 0;
  if (problem !== null) return idle ? "failed" : "failing";
  if (manifest !== null && idle && done + failed >= manifest.items) return "done"; // a cancellation came too late
  if (state.canceling) return idle ? "canceled" : "canceling";
  if (manifest === null) return "planning";
  if (idle && !hasNext(state, chunkSize)) return "done";
  return state.paused ? "paused" : "running";
}

/** What all attempts have committed, this one last. */
export function recordsOf(input: JobInput, state: State): JobRecord[] {
  const { manifest, head } = state;
  return [...(input.previous ?? []), { folder: attemptFolder(input), manifest, head }];
}

/** Every attempt has a folder of its own; that of the first is the job's. */
export function attemptFolder({ folder, attempt = 0 }: Pick<JobInput, "folder" | "attempt">): string {
  return attempt === 0 ? folder : `${folder}/retry-${attempt}`;
}

export function progressOf(input: JobInput, state: State, waiting: readonly string[], now: number): JobProgress {
  const { manifest, inFlight, firstFailure } = state;
  const { attempt = 0, previous: _previous, carried: _carried, ...request } = input;
  const size = (chunk: number) => (manifest === null ? 0 : itemsOf(manifest, input.chunkSize, chunk).count);
  return {
    request,
    attempt,
    state: stateName(state, input.chunkSize),
    total: manifest?.items ?? 0,
    done: state.done,
    failed: state.failed,
    inFlight: inFlight.reduce((sum, { chunk }) => sum + size(chunk), 0),
    chunks: {
      total: manifest === null ? 0 : chunksOf(manifest, input.chunkSize),
      finished: state.chunksFinished,
      inFlight: inFlight.length,
    },
    reencoded: state.reencoded,
    startedAt: state.startedAt,
    updatedAt: now,
    imagesPerSecond: rateOf(state),
    stages: state.stages,
    waiting,
    problem: state.problem,
    ...(firstFailure === undefined ? {} : { firstFailure }),
    records: recordsOf(input, state),
  };
}

/** Items a second between the first and the last of the recent reports. */
function rateOf({ recent }: State): number {
  const first = recent[0];
  const last = recent.at(-1);
  if (first === undefined || last === undefined || last.at <= first.at) return 0;
  const items = recent.slice(1).reduce((sum, report) => sum + report.items, 0);
  return (items * 1000) / (last.at - first.at);
}
