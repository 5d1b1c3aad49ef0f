// All operations whose kernels come in variants.

import { tunedMatmul } from "./matmul.ts";
import type { TunedOperation } from "./tuned-operation.ts";

export const operations: readonly TunedOperation[] = [tunedMatmul];
