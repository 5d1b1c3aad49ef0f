// The type of every message between callers, workflows and activities. Plain JSON, small: refs and counters only.

import type { Dtype, Generation } from "../stages.ts";

export type Stage = "encode" | "query" | "generate";

/** Which checkpoint, by identity. Queues and prompt subjects are named by `digest` and `dtype`. */
export interface ModelIdentity {
  readonly ref: string;
  readonly digest: string;
  readonly dtype: Dtype;
}

/** fused: ViT and Q-Former are one activity `encode`. split: `encode`, then `query` on any worker. */
export type Topology = "fused" | "split";

/** What is asked of every item of a job, and of `answer`. */
export interface Asked {
  readonly task: "caption" | "ask";
  readonly model: ModelIdentity;
  readonly topology: Topology;
  /** caption: used verbatim for items without their own; ask: the question for items without their own. */
  readonly prompt: string | null;
  readonly generation: Generation;
}

/** Input of the workflow `job`. */
export interface JobInput extends Asked {
  readonly jobId: string;
  /** URI of a folder, text list, JSONL or CSV; resolved and listed by the activity `plan`. */
  readonly source: string;
  /** URI of the folder that holds this job's manifest, chunk results and export. */
  readonly folder: string;
  /** Items a chunk: 64-512 on GPUs, at most 16 on slow adapters. */
  readonly chunkSize: number;
  /** Chunks in flight. */
  readonly window: number;
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
}

/** One line of the job's output. */
export type ItemResult =
  | {
      readonly id: string;
      readonly image: string;
      readonly status: "done";
      readonly question?: string;
      readonly text: string;
      readonly token_ids: readonly number[];
    }
  | {
      readonly id: string;
      readonly image: string;
      readonly status: "failed";
      readonly question?: string;
      readonly error: { readonly type: string; readonly message: string };
    };

/** An object in a job's folder that was committed, first writer wins; its digest goes into history. */
export interface Committed {
  readonly name: string;
  /** hex SHA-256 of the bytes that won */
  readonly sha256: string;
}
