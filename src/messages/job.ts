// The type of every message between callers, workflows and activities. Plain JSON, small: refs and counters only.

import type { Dtype, Generation, RunSettings } from "../stages.ts";
import type { Turn } from "../text/prompts.ts";

export type Stage = "encode" | "query" | "generate";

/** Which checkpoint, by identity. Queues are named by `digest`, `dtype` and `settings`, prompt subjects by `digest`. */
export interface ModelIdentity {
  readonly ref: string;
  readonly digest: string;
  readonly dtype: Dtype;
  /** How it is run where that is a choice; left out: as the checkpoint is. ModelCard.settings. */
  readonly settings?: RunSettings;
}

/** fused: ViT and Q-Former are one activity `encode`. split: `encode`, then `query` on any worker. */
export type Topology = "fused" | "split";

/**
 * caption and ask make texts. match compares an item with its texts, classify with its labels, index makes the vectors of its
 * image, capfilt makes a caption and judges it and the item's texts.
 */
export type Task = "caption" | "ask" | "match" | "classify" | "index" | "capfilt";

/** Who judges the texts of capfilt, and how. */
export interface Filter {
  readonly model: ModelIdentity;
  /** A text is kept from this matching probability on. */
  readonly threshold: number;
}

/** What is asked of every item of a job, and of `answer`. */
export interface Asked {
  readonly task: Task;
  readonly model: ModelIdentity;
  readonly topology: Topology;
  /** caption: used verbatim for items without their own; ask: the question for items without their own. */
  readonly prompt: string | null;
  /** ask: what was said before the question, the oldest first. */
  readonly turns?: readonly Turn[];
  /** What is left out has its default. */
  readonly generation: Partial<Generation>;
  /** ask: choose the likeliest of these instead of generating. */
  readonly answers?: AnswersRef;
  /** match: for items without texts of their own; classify: for those without labels. */
  readonly texts?: readonly string[];
  /** classify: texts with {} for the label; left out: the label as it is. */
  readonly templates?: readonly string[];
  /** capfilt only, and always there. */
  readonly filter?: Filter;
  /** index: URI of an index file; images that it has are not encoded again. */
  readonly known?: string;
}

/** A list of answers that was committed where every worker reads it; a history names it, and never holds it. */
export interface AnswersRef extends Committed {
  /** URI of the folder that the object is in. */
  readonly folder: string;
  /** Compare whole only so many, those with the likeliest first ids; left out: as the model has it. */
  readonly keep?: number;
}

/** Input of the workflow `job`. */
export interface JobInput extends Asked {
  readonly jobId: string;
  /** URI of a folder, text list, JSONL or CSV; resolved and listed by the activity `plan`. */
  readonly source: string;
  /** URI of the folder that relative paths of a list start at. Default: the list's own. */
  readonly imageFolder?: string;
  /** URI of the folder that holds this job's manifest, chunk results and export. */
  readonly folder: string;
  /** Items a chunk: 64-512 on GPUs, at most 16 on slow adapters. */
  readonly chunkSize: number;
  /** Chunks in flight. */
  readonly window: number;
  /** Default: see Timing. */
  readonly timing?: Timing;
  /** Default 0. A retry is attempt 1, 2, … of the same job, over the items that have no result but a failure. */
  readonly attempt?: number;
  /** What the attempts before this one left, oldest first; absent in attempt 0. */
  readonly previous?: readonly JobRecord[];
  /** Where done and failed are shown to Temporal's lists. The server must have the attributes; default memo. */
  readonly visibility?: "search-attributes" | "memo";
  /** State of a run that continues an earlier one; no caller sets it. */
  readonly carried?: JobCarried;
}

/** How soon the work of a worker that died or froze moves on. */
export interface Timing {
  /** A stage's activity that is silent for so many seconds is given to another worker. Default 20. */
  readonly heartbeatSeconds: number;
  /** A chunk that is silent for so many seconds is asked about. Default 60. */
  readonly silentSeconds: number;
}

/** One line of a manifest shard. `index` is the item's place in the input, from 0. */
export interface ManifestItem {
  readonly index: number;
  readonly id: string;
  /** As the user gave it, for the output. */
  readonly image: string;
  /** Where to read it. */
  readonly uri: string;
  readonly prompt: string | null;
  /** What match and capfilt compare it with, and classify, whose texts are labels. */
  readonly texts?: readonly string[];
}

/** An object in a job's folder that was committed, first writer wins; its digest goes into history. */
export interface Committed {
  readonly name: string;
  /** hex SHA-256 of the bytes that won */
  readonly sha256: string;
}

/** Names a manifest; small enough for a workflow's history. */
export interface ManifestRef {
  /** Number of items. */
  readonly items: number;
  /** Items of every shard but the last. */
  readonly shardSize: number;
  readonly index: Committed;
}

/** What one attempt of a job has committed: enough to export it, to continue it and to retry it. */
export interface JobRecord {
  /** URI of the attempt's folder. */
  readonly folder: string;
  /** null until it is planned. */
  readonly manifest: ManifestRef | null;
  /** The newest page of the chain of results (see IndexPage); null before the first. */
  readonly head: Committed | null;
}

/** One page of the chain of results, an object in the job's folder; `previous` leads to older ones, and so on. */
export interface IndexPage {
  readonly page: number;
  readonly previous: Committed | null;
  readonly chunks: readonly IndexEntry[];
}

/** The committed result of one chunk: a JSONL object of result lines. */
export interface IndexEntry {
  readonly chunk: number;
  readonly result: Committed;
  readonly done: number;
  readonly failed: number;
}

/** Chunks on one page of the chain. 100 entries are about 15 KB. */
export const chunksOnPage = 100;

/** Names a chunk, its items and where its objects are; part of every message about it. */
export interface ChunkIdentity {
  readonly jobId: string;
  readonly attempt: number;
  /** URI of the attempt's folder. */
  readonly folder: string;
  readonly manifest: ManifestRef;
  /** From 0 within the attempt. */
  readonly chunk: number;
  /** Its items: `count` of the manifest, from item `first`. */
  readonly first: number;
  readonly count: number;
}

/** Input of the workflow `chunk`. */
export interface ChunkInput extends ChunkIdentity {
  readonly asked: Asked;
  readonly timing: Timing;
  /** Workflow to report to. */
  readonly reportTo: string;
}

/** Positions in the chunk whose activation is not to be had from the prompt store. */
export interface Missing {
  /** Never published, evicted, or lost with a server. */
  readonly absent: readonly number[];
  /** There, but corrupt or foreign: the next publication overwrites it. */
  readonly damaged: readonly number[];
}

/** Input of the activities `encode` and `query` of a chunk. */
export interface EncodeInput extends ChunkIdentity {
  readonly asked: Asked;
  /** 0, then one for every time that prompts were missing. */
  readonly round: number;
  /** What this round is about; null: every item. */
  readonly missing: Missing | null;
}

export interface QueryInput extends EncodeInput {
  /** What `encode` committed in this round. */
  readonly encoded: Committed;
}

export interface GenerateInput extends ChunkIdentity {
  readonly asked: Asked;
  readonly round: number;
  /** What `encode` (fused) or `query` (split) committed, by round; a later line about an item replaces an earlier one. */
  readonly prompts: readonly Committed[];
  /** No further round: an item whose prompt is missing fails as PromptStoreError. */
  readonly last: boolean;
}

/** What one activity did, for the job's timings. */
export interface StageWork {
  /** Items that the GPU worked on. */
  readonly made: number;
  /** Items that were there already: in the prompt store, or committed by an earlier try. */
  readonly reused: number;
  /** From the activity's start to its end. */
  readonly milliseconds: number;
}

/** Input of the activity `compare`, which ends a chunk of match, classify, index or capfilt. */
export interface CompareInput extends ChunkIdentity {
  readonly asked: Asked;
  readonly round: number;
  /** What `encode` left in the prompt store, by round (split); null: compare encodes the images itself (fused). */
  readonly encoded: readonly Committed[] | null;
  /** capfilt: the chunk's captions, as `generate` committed them; else null. */
  readonly captions: Committed | null;
  /** No further round. */
  readonly last: boolean;
}

export interface EncodeOutcome extends StageWork {
  /** A JSONL object of PromptLines, one for every item of the round. */
  readonly committed: Committed;
}

export interface GenerateOutcome extends StageWork {
  /** The chunk's result when nothing is missing, a JSONL object of result lines in order. */
  readonly result: (Committed & ResultCount) | null;
  readonly missing: Missing;
}

/** What is in a chunk's result. */
export interface ResultCount {
  readonly done: number;
  readonly failed: number;
  /** The first item that failed, and why; its sentence may be cut. Workers of earlier versions left it out. */
  readonly firstFailure?: FailedItem;
}

export interface FailedItem {
  readonly id: string;
  readonly error: ItemError;
}

/**
 * One line about one item, written by `encode` and `query`. `position` counts from 0 in the chunk; `prompt` and
 * `features` are keys in the prompt store. `missing`: query did not get the features, so the prompt may not be there.
 */
export type PromptLine =
  | {
      readonly position: number;
      readonly prompt: string;
      readonly features?: string;
      /** Hex SHA-256 of the image file's bytes. Workers of earlier versions left it out. */
      readonly image?: string;
      readonly missing?: keyof Missing;
    }
  | { readonly position: number; readonly error: ItemError };

export interface ItemError {
  readonly type: string;
  readonly message: string;
}

/** How a chunk ended, by signal to its job and as its own result. */
export type ChunkReport = { readonly attempt: number; readonly chunk: number } & (
  | ({
      readonly state: "done";
      readonly result: Committed;
      readonly reencoded: number;
      readonly stages: StageTimings;
    } & ResultCount)
  | { readonly state: "canceled" }
  | { readonly state: "failed"; readonly error: ItemError }
);

/** Sums over the activities of each stage. */
export type StageTimings = Readonly<Partial<Record<Stage, StageWork>>>;

/** What Temporal says about a chunk that has not reported for a while. */
export type ChunkStanding =
  | { readonly chunk: number; readonly state: "running"; readonly waiting: string | null }
  | { readonly chunk: number; readonly state: "reported"; readonly report: ChunkReport }
  /** Terminated, timed out, or never started: to be started again. */
  | { readonly chunk: number; readonly state: "lost"; readonly why: string };

export type JobState = "planning" | "running" | "paused" | "canceling" | "canceled" | "failing" | "failed" | "done";

/** What a job is asked to do, without what its runs and attempts hand on. */
export type JobRequest = Omit<JobInput, "attempt" | "previous" | "carried">;

/** Answer of the query `progress`, and at the end the job's result. Counts are items of this attempt, unless they say chunks. */
export interface JobProgress {
  readonly request: JobRequest;
  readonly attempt: number;
  readonly state: JobState;
  readonly total: number;
  readonly done: number;
  readonly failed: number;
  readonly inFlight: number;
  readonly chunks: { readonly total: number; readonly finished: number; readonly inFlight: number };
  /** Items whose prompt was missing and that were encoded again. */
  readonly reencoded: number;
  /** Milliseconds since 1970. */
  readonly startedAt: number;
  readonly updatedAt: number;
  /** Over the last reports; 0 before the second. */
  readonly imagesPerSecond: number;
  readonly stages: StageTimings;
  /** Why silent chunks are not moving, newest first, as Temporal tells it; at most 5. */
  readonly waiting: readonly string[];
  /** Why the job fails; null while it does not. */
  readonly problem: ItemError | null;
  /** The failed item of this attempt that was heard of first. */
  readonly firstFailure?: FailedItem;
  /** What all attempts have committed, oldest first, this one last. */
  readonly records: readonly JobRecord[];
}

/** A chunk that was started and has not reported. */
export interface ChunkInFlight {
  readonly chunk: number;
  /** Milliseconds since 1970: started, or last known to be running. */
  readonly heardAt: number;
  /** Times it was lost and started again. */
  readonly restarts: number;
}

/** A page of the chain that still lacks chunks. */
export interface OpenPage {
  readonly page: number;
  readonly entries: readonly IndexEntry[];
}

/** The state of a job between two runs; bounded by the window, not by the job's size. */
export interface JobCarried {
  readonly manifest: ManifestRef | null;
  /** The chunk to start next; chunk n has the items from n * chunkSize. */
  readonly next: number;
  readonly done: number;
  readonly failed: number;
  readonly reencoded: number;
  readonly chunksFinished: number;
  readonly inFlight: readonly ChunkInFlight[];
  readonly openPages: readonly OpenPage[];
  readonly head: Committed | null;
  readonly stages: StageTimings;
  /** Times and sizes of the last reports, for the rate. */
  readonly recent: readonly { readonly at: number; readonly items: number }[];
  readonly startedAt: number;
  readonly paused: boolean;
  readonly canceling: boolean;
  readonly problem: ItemError | null;
  readonly firstFailure?: FailedItem;
}
