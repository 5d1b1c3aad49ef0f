// All operations whose kernels come in variants.

import { tunedAttention } from "./attention.ts";
import { tunedCachedAttention } from "./cached-attention.ts";
import { tunedMatmul } from "./matmul.ts";
import type { TunedOperation } from "./tuned-operation.ts";

export const operations: readonly TunedOperation[] = [tunedMatmul, tunedAttention, tunedCachedAttention];
