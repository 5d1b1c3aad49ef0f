// What weights take on a GPU, by their names alone: types, bytes, and where a matrix is cut.

import type { Gpu } from "../gpu/device.ts";
import { KernelError } from "../gpu/errors.ts";
import { byteLength, type ElementType } from "../gpu/tensor.ts";
import type { WeightType } from "../kernels/weights.ts";
import { type LinearNames, leavesOf, type NameLeaf, type NameTree } from "../weights/names/tensor-names.ts";

/** Bytes of a piece on its way; Dawn's upload ring is as large. */
const pieceBytes = 4 * 1024 * 1024;

/** Bytes of what is uploaded at once; a kernel binds it. */
export function largestPiece(gpu: Gpu): number {
  return Math.min(pieceBytes, Math.floor(gpu.bindingLimit / 256) * 256);
}

/** The matrix columns of one segment, all but the last one equally wide. A multiple of 4. */
export function segmentColumns(gpu: Gpu, name: string, inputs: number, columns: number, type: ElementType): number {
  const padded = Math.ceil(columns / 4) * 4;
  const fitting = Math.floor(gpu.bindingLimit / byteLength([inputs, 4], type)) * 4;
  // On their way, four columns are rows of a file, f32 at most.
  const four = byteLength([4, inputs], "f32");
  if (four <= largestPiece(gpu)) return Math.min(padded, fitting);
  throw new KernelError(
    `${name}: expected four columns of ${inputs} in ${largestPiece(gpu)} bytes, got ${four}; raise the binding limit`,
  );
}

/** The type of a matrix on the GPU where those of its stage have this one. */
export function matrixType({ keeps }: Pick<LinearNames, "keeps">, type: WeightType): WeightType {
  return keeps === undefined || (keeps === "f16" && type === "f32") ? type : keeps;
}

/** Bytes that the weights of a tree take on the GPU. @param type see WeightLoader */
export function weightBytes(tree: NameTree, type: WeightType): number {
  return leavesOf(tree).reduce((sum, leaf) => sum + leafBytes(leaf, type), 0);
}

function leafBytes(leaf: NameLeaf, type: WeightType): number {
  if (leaf.kind === "table" || leaf.kind === "computed") return byteLength(leaf.shape, "f32");
  if (leaf.kind === "picked") return byteLength([leaf.picks.length, leaf.stored.shape[1] ?? 0], "f32");
  if (leaf.kind === "grid") return byteLength([1 + leaf.to ** 2, leaf.width], "f32");
  if (leaf.kind === "rms-norm") return byteLength(leaf.gain.shape, "f32");
  if (leaf.kind === "norm") return byteLength(leaf.gain.shape, "f32") + byteLength(leaf.bias.shape, "f32");
  const matrix = byteLength([leaf.inputs, Math.ceil(leaf.columns / 4) * 4], matrixType(leaf, type));
  return matrix + (leaf.bias ? byteLength([leaf.columns], "f32") : 0);
}

/**
 * Refuse what loading would stop at.
 * @throws KernelError for a tensor that cannot be split below the binding limit
 */
export function expectBindable(gpu: Gpu, tree: NameTree, type: WeightType): void {
  for (const leaf of leavesOf(tree)) {
    if (leaf.kind === "linear") {
      segmentColumns(gpu, leaf.weight.name, leaf.inputs, leaf.columns, matrixType(leaf, type));
      continue;
    }
    const [name, bytes] = [nameOf(leaf), leafBytes(leaf, type)];
    if (bytes <= gpu.bindingLimit) continue;
    throw new KernelError(
      `${name}: expected at most ${gpu.bindingLimit} bytes, which this adapter binds of one buffer, got ${bytes}`,
    );
  }
}

function nameOf(leaf: Exclude<NameLeaf, LinearNames>): string {
  if (leaf.kind === "computed") return leaf.name;
  return leaf.kind === "norm" || leaf.kind === "rms-norm" ? leaf.gain.name : leaf.stored.name;
}
