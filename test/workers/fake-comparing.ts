// Stages of a model that compares, without a GPU: every number is a hash of what went in. Files as for fake-stages.ts.

import { createHash } from "node:crypto";
import { TextError } from "../../src/models/errors.ts";
import type { ContrastCard, LabelCard, LabelStages, RetrievalStages, RowOptions, Vectors } from "../../src/stages.ts";
import { fakeCard, fakeStages } from "./fake-stages.ts";

export const comparingCard: ContrastCard = {
  ref: "fake matcher",
  family: "blip-2-retrieval",
  digest: "fedcba987654".padEnd(64, "d"),
  dtype: "f32",
  image: fakeCard.image,
  features: fakeCard.features,
  vectors: [2, 4],
  maxPositions: 16,
};

export const labelCard: LabelCard = {
  ...comparingCard,
  ref: "fake classifier",
  family: "clip",
  vectors: [1, 4],
  logitScale: 3,
};

export interface FakeComparing extends RetrievalStages {
  /** Rows by stage, in order of their start. */
  readonly rows: string[];
}

/** @param onRow called when a row starts */
export function fakeComparing(
  onRow: (stage: string) => Promise<void> = async () => {},
  card: ContrastCard = comparingCard,
): FakeComparing {
  const { toPixels, encode } = fakeStages();
  const rows: string[] = [];
  const row = async (stage: string, options: RowOptions = {}) => {
    rows.push(stage);
    await onRow(stage);
    options.signal?.throwIfAborted();
  };
  const readable = (ids: readonly number[]) => {
    if (ids.length > card.maxPositions) {
      throw new TextError(`text: expected at most ${card.maxPositions} tokens, got ${ids.length}`);
    }
  };
  return {
    card,
    rows,
    toPixels,
    async encode(pixels, options) {
      await row("encode", options);
      return encode(pixels);
    },
    async tokenize(text) {
      return [...Buffer.from(text, "utf8")];
    },
    async queryImage({ bytes }, options) {
      await row("queryImage", options);
      return unitVectors(card.vectors[0], bytes);
    },
    async queryText(ids, options) {
      await row("queryText", options);
      readable(ids);
      return unitVectors(1, Uint8Array.from(ids));
    },
    async queryBoth({ bytes }, ids, options) {
      await row("queryBoth", options);
      readable(ids);
      const hash = createHash("sha256").update(bytes).update(Uint8Array.from(ids)).digest();
      return [hash.readInt8(0) / 32, hash.readInt8(1) / 32];
    },
    async close() {},
  };
}

/** The same of one that classifies. */
export function fakeClassifying(): LabelStages & Pick<FakeComparing, "rows"> {
  return { ...fakeComparing(undefined, labelCard), card: labelCard };
}

function unitVectors(rows: number, from: Uint8Array): Vectors {
  const hash = createHash("sha256").update(from).digest();
  const values = Float32Array.from({ length: rows * 4 }, (_, i) => hash.readInt8(i) / 128);
  for (let at = 0; at < values.length; at += 4) {
    const vector = values.subarray(at, at + 4);
    const length = Math.hypot(...vector);
    vector.forEach((value, i) => {
      vector[i] = value / length;
    });
  }
  return { type: "f32", shape: [rows, 4], bytes: new Uint8Array(values.buffer) };
}
