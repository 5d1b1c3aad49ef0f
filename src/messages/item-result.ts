// What came of the items of a job: the lines of its results.

import type { Committed, ItemError } from "./job.ts";

/** What came of an item. Of caption, ask and index it is one line of the job's output, else one line for each text. */
export type ItemResult = { readonly id: string; readonly image: string; readonly question?: string } & (
  | {
      readonly status: "done";
      readonly text: string;
      readonly token_ids: readonly number[];
      /** Of an answer that was chosen from a list. */
      readonly score?: number;
    }
  | { readonly status: "done"; readonly matches: readonly MatchLine[] }
  | { readonly status: "done"; readonly labels: readonly LabelLine[] }
  | { readonly status: "done"; readonly decisions: readonly Decision[] }
  | { readonly status: "done"; readonly vectors: VectorsAt }
  | {
      readonly status: "failed";
      readonly error: ItemError;
      /** match: each text with its error, or with its scores where only others failed. */
      readonly matches?: readonly MatchLine[];
      /** classify: the same of labels. */
      readonly labels?: readonly LabelLine[];
    }
);

/** A text of match with its scores, or why it has none. */
export type MatchLine = { readonly text: string } & (
  | { readonly itm: number; readonly itc: number }
  | { readonly error: ItemError }
);

/** A label of classify with its share of the image among those that could be read, or why it has none. */
export type LabelLine = { readonly label: string } & (
  | { readonly logit: number; readonly probability: number }
  | { readonly error: ItemError }
);

/** A text of capfilt, where it comes from, and whether and why it stays. Scores are null where the text was not looked at. */
export interface Decision {
  readonly text: string;
  readonly source: "web" | "synthetic";
  readonly itm: number | null;
  readonly itc: number | null;
  readonly kept: boolean;
  readonly reason: string;
}

/** The vectors of an image, in the type of the job's hand-overs; null: they are in the index that was known. */
export interface VectorsAt {
  /** Hex SHA-256 of the image file's bytes. */
  readonly digest: string;
  readonly at: {
    readonly object: Committed;
    readonly row: number;
    /** (queries, width) of one image */
    readonly shape: readonly [number, number];
  } | null;
}
