// Which variants of attention are tried, and on what: the queries of ViT-g, of a Q-Former and of a short text.

import { attention } from "../kernels/attention.ts";
import { type AttentionForm, attentionOperation } from "../kernels/attention-variants.ts";
import { TrialTensors, valueAt } from "./random-tensors.ts";
import { softmaxMix } from "./softmax-mix.ts";
import type { Adapter, TunedOperation } from "./tuned-operation.ts";

interface Shape {
  readonly queryTokens: number;
  readonly keyTokens: number;
  readonly heads: number;
  readonly headWidth: number;
}

/** What a model asks most in a class. */
const shapes: Readonly<Record<string, Shape>> = {
  "up to 8 queries": { queryTokens: 8, keyTokens: 577, heads: 12, headWidth: 64 },
  "9 to 64 queries": { queryTokens: 32, keyTokens: 257, heads: 12, headWidth: 64 },
  "more queries": { queryTokens: 257, keyTokens: 257, heads: 16, headWidth: 88 },
};

const seeds = { q: 1, key: 2, value: 3 };
/** Larger than a model's, so that weights differ by much. */
const scale = 0.5;

export const tunedAttention: TunedOperation<AttentionForm> = {
  ...attentionOperation,
  candidates(_, { softwareAdapter, quick }) {
    const lanes = [2, 1, 4].map((QUERIES) => ({ shader: "attention-lanes" as const, QUERIES }));
    const tiled = [4, 2, 1, 8].map((ROWS) => ({ shader: "attention-tiled" as const, ROWS }));
    const few = quick ? 1 : 2;
    // The other family may turn out to be the faster one; that more of it is, nobody need know.
    return softwareAdapter
      ? [...lanes.slice(0, quick ? 2 : 3), ...tiled.slice(0, few)]
      : [...tiled.slice(0, quick ? 2 : 4), ...lanes.slice(0, few)];
  },
  trial(shapeClass, { quick }: Adapter) {
    const whole = shapes[shapeClass] as Shape;
    const { queryTokens, keyTokens, heads, headWidth } = quick ? { ...whole, heads: whole.heads / 4 } : whole;
    const width = heads * headWidth;
    return {
      measured: `${queryTokens} queries, ${keyTokens} keys, ${heads} heads of ${headWidth}`,
      async open(gpu) {
        const tensors = new TrialTensors(gpu);
        const part = async (name: keyof typeof seeds, tokens: number) => {
          return { rows: await tensors.random(name, [tokens, width], seeds[name]), column: 0 };
        };
        const [q, key, value] = [
          await part("q", queryTokens),
          await part("key", keyTokens),
          await part("value", keyTokens),
        ];
        const sizes = { batch: 1, queryTokens, keyTokens, heads, headWidth, scale };
        return {
          forward: (k) => attention(k, q, key, value, sizes),
          expected(i) {
            const column = i % width;
            return softmaxMix({
              ...{ keys: keyTokens, headWidth, scale },
              query: (d) => valueAt(i - (column % headWidth) + d, seeds.q),
              key: (t, d) => valueAt(t * width + column - (column % headWidth) + d, seeds.key),
              value: (t) => valueAt(t * width + column, seeds.value),
            });
          },
          close: () => tensors.free(),
        };
      },
    };
  },
};
