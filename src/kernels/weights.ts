// The weight records that kernels take: what a model file's own records are made of.

import type { Tensor } from "../gpu/tensor.ts";

/** Types that a matrix may have on the GPU. */
export type WeightType = "f32" | "f16" | "int8" | "int4";

/** LayerNorm: gain and bias (width), f32; eps inside the square root. */
export interface Norm {
  readonly gain: Tensor;
  readonly bias: Tensor;
  readonly eps: number;
}

/** RMSNorm: gain (width), f32; eps inside the square root. No mean is taken out, nothing is added. */
export interface RmsNorm {
  readonly gain: Tensor;
  readonly eps: number;
}

/**
 * The columns [from, from + width) of a matrix of `columns` outputs, as one binding.
 * weight: (inputs, padded width) row-major, i.e. the transpose of PyTorch's Linear.weight; padded to a multiple of
 * 4 columns with zeros. Type f32, or f16 (packed pairs along the columns), or int8 or int4 (see ElementType).
 */
export interface Segment {
  readonly weight: Tensor;
  readonly from: number;
  readonly width: number;
}

/**
 * y = x·W + b. x: (rows, inputs) -> y: (rows, columns).
 * More than one segment only where the matrix is above the device's binding limit (it is split by output columns).
 * With weights other than f32 the kernels round x to f16 before multiplying; sums are f32.
 */
export interface Linear {
  readonly segments: readonly Segment[];
  readonly bias: Tensor | null;
  readonly inputs: number;
  readonly columns: number;
}
