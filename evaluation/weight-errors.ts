// How far the matrices of a checkpoint are from what is stored, once they are whole numbers on the adapter.

import type { Gpu } from "../src/gpu/device.ts";
import { groupSize } from "../src/gpu/tensor.ts";
import type { Segment } from "../src/kernels/weights.ts";
import { WeightLoader } from "../src/models/load.ts";
import { matrixType } from "../src/models/weight-sizes.ts";
import type { Checkpoint } from "../src/weights/checkpoint.ts";
import { type LinearNames, leavesOf, type NameTree, rowRuns } from "../src/weights/names/tensor-names.ts";
import { readValues } from "../src/weights/safetensors.ts";

/** Root mean square of what a matrix lost, divided by that of the matrix. */
export interface MatrixError {
  readonly name: string;
  readonly error: number;
}

export interface LayerErrors {
  /** The matrices' common name, e.g. "language_model.model.decoder.layers.3". */
  readonly layer: string;
  readonly matrices: readonly MatrixError[];
}

/**
 * Every matrix that is quantized, as it lies on the adapter after loading, against the file.
 * @param tree the names of the model, or of a part
 */
export async function weightErrors(
  gpu: Gpu,
  checkpoint: Checkpoint,
  tree: NameTree,
  type: "int8" | "int4",
): Promise<readonly LayerErrors[]> {
  const layers = new Map<string, MatrixError[]>();
  for (const leaf of leavesOf(tree)) {
    if (leaf.kind !== "linear" || matrixType(leaf, type) !== type) continue;
    const { name } = leaf.weight;
    const [layer = name] = /^.*\.\d+(?=\.)/.exec(name) ?? [];
    const error = await matrixError(gpu, checkpoint, leaf, type);
    layers.set(layer, [...(layers.get(layer) ?? []), { name, error }]);
  }
  return [...layers].map(([layer, matrices]) => ({ layer, matrices }));
}

async function matrixError(
  gpu: Gpu,
  checkpoint: Checkpoint,
  leaf: LinearNames,
  type: "int8" | "int4",
): Promise<number> {
  const { weight, inputs, columns, part } = leaf;
  const stored = checkpoint.tensors.get(weight.name);
  if (stored === undefined) throw new Error(`weight-errors: expected ${weight.name} to have been checked, got none`);
  const wanted = await readValues(stored);
  const loader = new WeightLoader(gpu, checkpoint, type);
  let [lost, whole] = [0, 0];
  try {
    const { segments } = await loader.load({ ...leaf, bias: null });
    for (const segment of segments) {
      const words = new Uint32Array(await gpu.read(segment.weight));
      for (const { column, row, count } of rowRuns(part, segment.from, segment.width)) {
        for (let i = 0; i < count * inputs; i++) {
          const [c, k] = [Math.floor(i / inputs), i % inputs];
          const value = wanted[(row + c) * inputs + k] ?? Number.NaN;
          lost += (value - weightAt(words, segment, type, column - segment.from + c, k)) ** 2;
          whole += value ** 2;
        }
      }
    }
  } finally {
    loader.release();
  }
  return columns === 0 || whole === 0 ? 0 : Math.sqrt(lost / whole);
}

/** What input k of a column is multiplied with; see shaders/quantize-weight.wgsl. */
function weightAt(words: Uint32Array, { weight }: Segment, type: "int8" | "int4", column: number, k: number): number {
  const stride = weight.shape[1] ?? 0;
  const bits = type === "int8" ? 8 : 4;
  const inWord = 32 / bits;
  const rows = groupSize / inWord;
  const start = Math.floor(k / groupSize) * stride * (rows + 0.5);
  const word = words[start + Math.floor((k % groupSize) / inWord) * stride + column] ?? 0;
  const whole = (word << (32 - bits * ((k % inWord) + 1))) >> (32 - bits);
  const pair = words[start + rows * stride + Math.floor(column / 2)] ?? 0;
  const [scale = Number.NaN] = new Float32Array(
    Uint32Array.of(column % 2 === 0 ? pair << 16 : pair & 0xffff0000).buffer,
  );
  return whole * scale;
}

/** A line for each layer, and one for all: mean, and the worst by name. */
export function weightErrorLines(layers: readonly LayerErrors[], type: "int8" | "int4"): string[] {
  const all = layers.flatMap(({ matrices }) => matrices);
  const rows = [...layers, { layer: "all", matrices: all }].map(({ layer, matrices }) => {
    const worst = matrices.reduce((a, b) => (b.error > a.error ? b : a));
    const mean = matrices.reduce((sum, { error }) => sum + error, 0) / matrices.length;
    return [
      layer,
      String(matrices.length),
      percent(mean),
      percent(worst.error),
      worst.name.slice(layer === "all" ? 0 : layer.length + 1),
    ];
  });
  const cells = [[`${type} matrices, error by layer`, "of", "mean", "worst", ""], ...rows];
  const widths = [0, 1, 2, 3].map((column) => Math.max(...cells.map((row) => row[column]?.length ?? 0)));
  return cells.map((row) =>
    row
      .map((cell, i) => (i === 0 || i === 4 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0)))
      .join("  ")
      .trimEnd(),
  );
}

function percent(error: number): string {
  return `${(100 * error).toFixed(2)} %`;
}
