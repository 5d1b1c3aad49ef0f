// Which variants of attention over a cache are tried, and on what: a step of OPT-2.7b.

import { cachedAttention } from "../kernels/cached-attention.ts";
import { type CachedAttentionForm, cachedAttentionOperation } from "../kernels/cached-attention-variants.ts";
import { TrialTensors, valueAt } from "./random-tensors.ts";
import { softmaxMix } from "./softmax-mix.ts";
import type { Adapter, TunedOperation } from "./tuned-operation.ts";

/** One row behind so many positions. */
const shape = { positions: 256, heads: 32, headDim: 80 };

const seeds = { queries: 1, keys: 2, values: 3 };
/** Larger than a model's, so that weights differ by much. */
const scale = 0.5;

export const tunedCachedAttention: TunedOperation<CachedAttentionForm> = {
  ...cachedAttentionOperation,
  candidates(_, { softwareAdapter, quick }) {
    const lanes = [64, 32, 128].map((TILE) => ({ shader: "cached-attention-lanes" as const, TILE }));
    const spans = [
      [64, 128],
      [32, 64],
      [64, 64],
      [128, 128],
      [64, 256],
    ].map(([LANES = 0, SPAN = 0]) => ({ shader: "cached-attention" as const, LANES, SPAN }));
    // The other family may turn out to be the faster one; that more of it is, nobody need know.
    return softwareAdapter
      ? [...lanes.slice(0, quick ? 2 : 3), ...spans.slice(0, 1)]
      : [...spans.slice(0, quick ? 2 : 5), ...lanes.slice(0, 1)];
  },
  trial(_, { quick }: Adapter) {
    const { positions, heads, headDim } = quick ? { ...shape, heads: shape.heads / 4 } : shape;
    const width = heads * headDim;
    return {
      measured: `1 row over ${positions} positions, ${heads} heads of ${headDim}, f16`,
      async open(gpu) {
        const tensors = new TrialTensors(gpu);
        const queries = await tensors.random("queries", [1, width], seeds.queries);
        const cache = {
          keys: await tensors.random("keys", [positions, width], seeds.keys, "f16"),
          values: await tensors.random("values", [positions, width], seeds.values, "f16"),
        };
        const slots = Array.from({ length: positions }, (_, position) => position);
        const table = await tensors.integers("table", [1, positions], slots);
        const cursors = await tensors.integers("cursors", [1, 4], [0, positions - 1, positions - 1, 0]);
        return {
          forward: (k) => cachedAttention(k, queries, cache, table, cursors, heads, scale),
          expected(i) {
            const head = i - (i % headDim);
            return softmaxMix({
              ...{ keys: positions, headWidth: headDim, scale },
              query: (d) => valueAt(head + d, seeds.queries),
              key: (t, d) => valueAt(t * width + head + d, seeds.keys),
              value: (t) => valueAt(t * width + i, seeds.values),
            });
          },
          close: () => tensors.free(),
        };
      },
    };
  },
};
