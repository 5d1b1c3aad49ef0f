// What attention over a cache is given, in every kernel of it.

import { ShapeError } from "../gpu/errors.ts";
import { expectShape, type Tensor } from "../gpu/tensor.ts";
import type { Choice } from "../gpu/variants.ts";
import type { LayerCache } from "./append-cache.ts";
import { reachOf } from "./attention-sizes.ts";

/** What stands before and behind a score, see cachedAttention. */
export interface CachedMore {
  readonly positionBias?: Tensor;
  readonly contexts?: Tensor;
}

/** As the kernels take it. */
export interface CachedForm {
  readonly rows: number;
  readonly heads: number;
  readonly headDim: number;
  readonly inputs: Readonly<
    Record<"queries" | "keyCache" | "valueCache" | "table" | "cursors" | "positionBias" | "contexts", Tensor>
  >;
  readonly params: Readonly<Record<"heads" | "positions" | "stride" | "scale" | "reach", number>>;
  readonly constants: {
    readonly headDim: number;
    readonly half: string;
    /** Every head starts at a multiple of four words and is one. */
    readonly fours: string;
    readonly hasPositionBias: string;
    readonly hasContexts: string;
  };
  /** The variant that launches are of; one without cannot be refused. */
  readonly choice?: Choice;
}

/** Checked. Parameters are those of cachedAttention. @throws ShapeError */
export function cachedForm(
  queries: Tensor,
  cache: LayerCache,
  table: Tensor,
  cursors: Tensor,
  heads: number,
  scale: number,
  { positionBias, contexts }: CachedMore,
): CachedForm {
  const [rows = 0, width = 0] = expectShape("cachedAttention", queries, ["rows", "width"]);
  const [sequences = 0, positions = 0] = expectShape("cachedAttention", table, ["sequences", "positions"]);
  if (contexts) expectShape("cachedAttention", contexts, [sequences], "u32");
  if (contexts && positionBias) {
    throw new ShapeError("cachedAttention: expected a position bias or contexts, got both");
  }
  expectShape("cachedAttention", cursors, [rows, 4]);
  const half = cache.keys.type === "f16";
  const stride = half ? Math.ceil(width / 2) * 2 : width;
  expectShape("cachedAttention", cache.keys, ["slots", stride]);
  expectShape("cachedAttention", cache.values, ["slots", stride]);
  if (width % heads !== 0) {
    throw new ShapeError(`cachedAttention: expected a width divisible by ${heads} heads, got ${width}`);
  }
  const headDim = width / heads;
  const elements = half ? 8 : 4;
  return {
    rows,
    heads,
    headDim,
    inputs: {
      queries,
      keyCache: cache.keys,
      valueCache: cache.values,
      table,
      cursors,
      positionBias: positionBias ?? queries,
      contexts: contexts ?? cursors,
    },
    params: { heads, positions, stride, scale, reach: positionBias ? reachOf(positionBias, heads) : 0 },
    constants: {
      headDim,
      half: `${half}`,
      fours: `${headDim % elements === 0 && stride % elements === 0}`,
      hasPositionBias: `${positionBias !== undefined}`,
      hasContexts: `${contexts !== undefined}`,
    },
  };
}
