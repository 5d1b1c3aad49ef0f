// All operations whose kernels come in variants.

import type { z } from "zod";
import { matmulOperation } from "./matmul-variants.ts";

/** What the tables, and their tests, need to know of an operation. */
interface KnownOperation {
  readonly name: string;
  readonly classes: readonly string[];
  readonly variant: z.ZodType;
}

export const operations: readonly KnownOperation[] = [matmulOperation];
