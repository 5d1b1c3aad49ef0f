// Which tiles of matmul are tried, and on what: the products of ViT-g, of the Q-Former and of OPT-2.7b's steps.

import { isPacked } from "../gpu/tensor.ts";
import { matmul } from "../kernels/matmul.ts";
import { formTypes, type MatmulForm } from "../kernels/matmul-forms.ts";
import { matmulOperation, matmulTypes } from "../kernels/matmul-variants.ts";
import { TrialTensors, valueAt, weightAt } from "./random-tensors.ts";
import type { Adapter, TunedOperation } from "./tuned-operation.ts";

interface Shape {
  readonly rows: number;
  readonly inputs: number;
  readonly columns: number;
}

/** By the class of rows: what a model multiplies there most. */
const shapes: Readonly<Record<string, Shape>> = {
  "1 row": { rows: 1, inputs: 2560, columns: 10240 },
  "2 to 4 rows": { rows: 4, inputs: 2560, columns: 10240 },
  "5 to 8 rows": { rows: 8, inputs: 2560, columns: 10240 },
  "9 to 16 rows": { rows: 16, inputs: 2560, columns: 10240 },
  "17 to 64 rows": { rows: 32, inputs: 768, columns: 3072 },
  "more rows": { rows: 257, inputs: 1408, columns: 6144 },
};

/** By the class of rows: rows of a tile that are worth trying. */
const tileRows: Readonly<Record<string, readonly number[]>> = {
  "1 row": [1],
  "2 to 4 rows": [4, 2, 8],
  "5 to 8 rows": [8, 4],
  "9 to 16 rows": [16, 8],
  "17 to 64 rows": [8, 16, 4],
  "more rows": [16, 8, 22],
};

/** Of the f32 products every chain of sums is one of `inputs` roundings. */
const unit = 2 ** -24;

const seeds = { x: 1, weight: 2, residual: 3 };

function parts(shapeClass: string): { type: (typeof matmulTypes)[number]; rows: string } {
  const type = matmulTypes.find((each) => shapeClass.startsWith(`${each}, `)) ?? "f32";
  return { type, rows: shapeClass.slice(type.length + 2) };
}

/** Forms for GPUs, in the order of their hopes; what the adapter or the type of the weights does not allow is passed over. */
function gpuForms(rows: string): readonly MatmulForm[] {
  const fewRows = (ROWS: 1 | 2 | 4 | 8, sizes: readonly (readonly [number, number, number])[]) =>
    sizes.map(([GROUPS, SLICES, TURNS]) => ({ shader: "matmul-few-rows" as const, ROWS, GROUPS, SLICES, TURNS }));
  const tiled = (sizes: readonly (readonly [number, number, number, number])[]) =>
    sizes.map(([ROW_LANES, COLUMN_LANES, ROWS, VECS]) => {
      return { shader: "matmul-tiled" as const, ROW_LANES, COLUMN_LANES, ROWS, VECS, DEPTH: 16 };
    });
  const matrix = (sizes: readonly (readonly [number, number, number, number, number, number])[]) =>
    sizes.map(([TILE_ROWS, TILE_COLUMNS, SUBGROUP_ROWS, SUBGROUP_COLUMNS, SLICES, DEPTH]) => {
      const subgroups = { SUBGROUP_ROWS, SUBGROUP_COLUMNS, SLICES };
      return { shader: "matmul-matrix" as const, TILE_ROWS, TILE_COLUMNS, ...subgroups, DEPTH };
    });
  switch (rows) {
    case "1 row":
      return fewRows(1, [
        [8, 32, 4],
        [8, 32, 2],
        [4, 64, 4],
        [4, 32, 4],
        [16, 16, 4],
        [32, 8, 4],
        [8, 16, 4],
      ]);
    case "2 to 4 rows":
      return fewRows(4, [
        [8, 32, 2],
        [8, 32, 4],
        [4, 64, 2],
        [4, 32, 4],
        [16, 16, 2],
        [8, 16, 4],
      ]);
    case "5 to 8 rows":
    case "9 to 16 rows":
      return [
        ...matrix([
          [16, 32, 1, 1, 8, 16],
          [16, 64, 1, 2, 4, 32],
          [16, 32, 1, 1, 4, 32],
          [16, 16, 1, 1, 8, 32],
        ]),
        ...fewRows(8, [
          [8, 16, 2],
          [8, 32, 1],
          [16, 16, 1],
        ]),
      ];
    case "17 to 64 rows":
      return [
        ...matrix([
          [32, 32, 1, 1, 8, 16],
          [32, 64, 1, 2, 4, 32],
          [32, 32, 1, 1, 4, 32],
          [32, 16, 1, 1, 8, 16],
          [64, 64, 2, 2, 2, 32],
        ]),
        ...tiled([
          [8, 16, 4, 1],
          [8, 8, 4, 1],
          [8, 8, 4, 2],
        ]),
      ];
    default:
      return [
        ...matrix([
          [128, 128, 2, 4, 1, 32],
          [64, 64, 2, 2, 1, 32],
          [128, 64, 4, 2, 1, 32],
          [64, 128, 2, 4, 1, 32],
          [128, 128, 4, 2, 1, 32],
          [64, 64, 2, 2, 1, 64],
        ]),
        ...tiled([
          [8, 8, 8, 2],
          [16, 16, 8, 2],
          [16, 16, 4, 1],
          [8, 16, 8, 2],
        ]),
      ];
  }
}

/** Ways to load inputs: in steps of one and, where they are lent, of two; packed weights are multiplied a word at a time. */
function lending(LANES: number, quick: boolean, packed: boolean): { readonly LANES: number; readonly STEPS: number }[] {
  const steps = LANES === 1 || packed ? [1] : quick ? [2] : [2, 1];
  return steps.map((STEPS) => ({ LANES, STEPS }));
}

export const tunedMatmul: TunedOperation<MatmulForm> = {
  ...matmulOperation,
  group: (shapeClass) => parts(shapeClass).type,
  candidates(shapeClass, { softwareAdapter, lanes, quick }) {
    const { type, rows } = parts(shapeClass);
    const groups = softwareAdapter ? [1] : [1, 2, 4];
    const workgroups = (quick ? groups.slice(0, 1) : groups).map((count) => count * lanes);
    const vecs = !softwareAdapter ? [4, 2, 1] : rows === "1 row" ? [8, 4, 2, 1] : [4, 2];
    const tiles = (tileRows[rows] ?? []).slice(0, quick ? 2 : 3);
    // Lending pays where a load costs as much when all invocations want the same.
    const loads = (softwareAdapter ? [1, lanes] : [1]).flatMap((LANES) => lending(LANES, quick, isPacked(type)));
    const plain = workgroups.flatMap((WORKGROUP) =>
      tiles.flatMap((ROWS) =>
        vecs.flatMap((VECS) => loads.map((load) => ({ shader: "matmul" as const, WORKGROUP, ROWS, VECS, ...load }))),
      ),
    );
    const forms = softwareAdapter ? [] : gpuForms(rows).filter(({ shader }) => formTypes[shader].includes(type));
    return [...(quick ? forms.filter((_, i) => i % 3 === 0) : forms), ...plain];
  },
  trial(shapeClass, { quick }: Adapter) {
    const { type, rows: rowClass } = parts(shapeClass);
    const whole = shapes[rowClass] as Shape;
    const { rows, inputs, columns } = quick ? { ...whole, columns: whole.columns / 4 } : whole;
    return {
      measured: `(${rows} x ${inputs}) x (${inputs} x ${columns}) ${type}`,
      async open(gpu) {
        const tensors = new TrialTensors(gpu);
        const x = await tensors.random("x", [rows, inputs], seeds.x);
        const linear = await tensors.linear(inputs, columns, type, seeds.weight);
        const residual = await tensors.random("residual", [rows, columns], seeds.residual);
        return {
          // As in a model: what follows the sums is much of what is compiled.
          forward: (k) => matmul(k, x, linear, { activation: "relu", residual }),
          expected(i) {
            const [row, column] = [Math.floor(i / columns), i % columns];
            let value = 0;
            let size = 0;
            for (let k = 0; k < inputs; k++) {
              const product =
                valueAt(row * inputs + k, seeds.x) * weightAt(column * inputs + k, inputs, type, seeds.weight);
              value += product;
              size += Math.abs(product);
            }
            return { value: Math.max(value, 0) + valueAt(i, seeds.residual), tolerance: inputs * unit * (size + 1) };
          },
          close: () => tensors.free(),
        };
      },
    };
  },
};
