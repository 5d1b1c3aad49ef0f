// Stages without a GPU: every step is a hash of what went in, so equal inputs give equal texts and nothing else does.
//
// An image is any file; one that starts with "not an image" is none.

import { createHash } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { ImageError } from "../../src/image/image-error.ts";
import type { Activation, Generation, ModelCard, Pixels, QueryOptions, RowOptions, Stages } from "../../src/stages.ts";

export const fakeCard: ModelCard = {
  ref: "fake",
  family: "blip-2-opt",
  digest: "0123456789ab".padEnd(64, "c"),
  dtype: "f32",
  image: {
    height: 2,
    width: 2,
    resample: "bicubic",
    rescale: 1 / 255,
    mean: [0.5, 0.5, 0.5],
    std: [0.5, 0.5, 0.5],
  },
  features: [4, 8],
  handsOver: "prompt",
  prompt: [2, 4],
  maxPositions: 64,
};

/** Of a model without a query stage. */
export const featuresCard: ModelCard = {
  ...fakeCard,
  family: "blip-caption",
  handsOver: "features",
  prompt: fakeCard.features,
};

/** Of a model whose Q-Former reads the instruction. */
export const instructedCard: ModelCard = {
  ...fakeCard,
  family: "instructblip-vicuna",
  instruction: { maxIds: 64 },
};

export interface FakeStages extends Stages {
  /** What generate was asked for, in order. */
  readonly texts: { readonly generation: Generation; readonly image: string | undefined }[];
  /** Rows by stage, in order of their start. */
  readonly rows: { readonly stage: "encode" | "query" | "encodeAndQuery" | "generate"; readonly priority: string }[];
}

/** @param rowMs how long a row of any stage takes */
export function fakeStages(
  rowMs = 0,
  onRow: (stage: string) => Promise<void> = async () => {},
  card: ModelCard = fakeCard,
): FakeStages {
  const rows: FakeStages["rows"] = [];
  const texts: FakeStages["texts"] = [];
  const row = async (stage: FakeStages["rows"][number]["stage"], options: RowOptions = {}) => {
    rows.push({ stage, priority: options.priority ?? "batch" });
    await onRow(stage);
    if (rowMs > 0) await delay(rowMs, undefined, options.signal ? { signal: options.signal } : {});
    options.signal?.throwIfAborted();
  };
  const encode = (pixels: Pixels) => activation("features", card.features, bytesOf(pixels.data));
  const query = (features: Activation, { instructionIds }: QueryOptions = {}) => {
    if (card.handsOver === "features") throw new Error("expected no query of a model that has none, got one");
    if ((card.instruction === undefined) !== (instructionIds === undefined)) {
      throw new Error(`expected ${card.instruction ? "an instruction" : "no instruction"}, got ${instructionIds}`);
    }
    return activation("prompt", card.prompt, Buffer.concat([features.bytes, Uint8Array.from(instructionIds ?? [])]));
  };
  return {
    card,
    rows,
    texts,
    async toPixels(image) {
      const text = Buffer.from(image).toString("latin1");
      if (text === "" || text.startsWith("not an image")) throw new ImageError("image: expected an image, got none");
      const data = new Float32Array(12);
      createHash("sha256")
        .update(image)
        .digest()
        .subarray(0, 12)
        .forEach((byte, i) => {
          data[i] = byte;
        });
      return { data, height: 2, width: 2 };
    },
    async encode(pixels, options) {
      await row("encode", options);
      return encode(pixels);
    },
    async query(features, options) {
      await row("query", options);
      return query(features, options);
    },
    async encodeAndQuery(pixels, options) {
      await row("encodeAndQuery", options);
      return query(encode(pixels));
    },
    async tokenize(text) {
      return [...Buffer.from(text ?? "", "utf8")];
    },
    async tokenizeInstruction(text) {
      return [1, ...Buffer.from(text, "utf8"), 2];
    },
    async tokenizeAnswer(text) {
      return [...Buffer.from(text, "utf8")];
    },
    async generate(prompt, textIds, generation, options) {
      await row("generate", options);
      texts.push({ generation, image: options?.image });
      const seed = createHash("sha256").update(prompt.bytes).update(Uint8Array.from(textIds)).digest();
      return [...seed.subarray(0, Math.min(6, generation.maxNewTokens))];
    },
    async rank(_prompt, _textIds, answers) {
      return answers.map((ids) => -ids.length);
    },
    async attention(_features, ids) {
      return { shape: [ids.length, 1], weights: new Float32Array(ids.length).fill(1) };
    },
    async detokenize(ids) {
      return Buffer.from(ids).toString("hex");
    },
    async close() {},
  };
}

function activation(kind: Activation["kind"], shape: readonly [number, number], from: Uint8Array): Activation {
  const bytes = new Uint8Array(shape[0] * shape[1] * 4);
  for (let at = 0; at < bytes.length; at += 32) {
    bytes.set(
      createHash("sha256")
        .update(kind)
        .update(String(at))
        .update(from)
        .digest()
        .subarray(0, bytes.length - at),
      at,
    );
  }
  return { kind, type: "f32", shape, bytes };
}

function bytesOf(data: Float32Array): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}
