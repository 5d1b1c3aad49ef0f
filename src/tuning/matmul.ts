// Which tiles of matmul are tried, and on what: the products of ViT-g, of the Q-Former and of OPT-2.7b's steps.

import { matmul } from "../kernels/matmul.ts";
import { type MatmulVariant, matmulOperation, matmulTypes } from "../kernels/matmul-variants.ts";
import { TrialTensors, valueAt } from "./random-tensors.ts";
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
  "5 to 16 rows": { rows: 8, inputs: 2560, columns: 10240 },
  "17 to 64 rows": { rows: 32, inputs: 768, columns: 3072 },
  "more rows": { rows: 257, inputs: 1408, columns: 1408 },
};

/** By the class of rows: rows of a tile that are worth trying. */
const tileRows: Readonly<Record<string, readonly number[]>> = {
  "1 row": [1],
  "2 to 4 rows": [4, 2, 8],
  "5 to 16 rows": [8, 4, 16],
  "17 to 64 rows": [8, 16, 4],
  "more rows": [8, 16],
};

/** Of the f32 products every chain of sums is one of `inputs` roundings. */
const unit = 2 ** -24;

const seeds = { x: 1, weight: 2 };

/** How the invocations of a subgroup of `lanes` load inputs for each other, and that they do not. */
function lending(lanes: number): { LANES: number; STEPS: number }[] {
  const steps = [1, 2].filter((STEPS) => STEPS <= lanes && lanes > 1);
  return [{ LANES: 1, STEPS: 1 }, ...steps.map((STEPS) => ({ LANES: lanes, STEPS }))];
}

function parts(shapeClass: string): { type: (typeof matmulTypes)[number]; rows: string } {
  const type = matmulTypes.find((each) => shapeClass.startsWith(`${each}, `)) ?? "f32";
  return { type, rows: shapeClass.slice(type.length + 2) };
}

export const tunedMatmul: TunedOperation<MatmulVariant> = {
  ...matmulOperation,
  candidates(shapeClass, { softwareAdapter, lanes, quick }) {
    const { rows } = parts(shapeClass);
    const groups = softwareAdapter ? (rows === "1 row" ? [1, 2] : [1]) : [1, 2, 4];
    const workgroups = (quick ? groups.slice(0, 1) : groups).map((count) => count * lanes);
    const vecs = softwareAdapter ? (rows === "1 row" ? [8, 4, 2] : [4, 2]) : [4, 2, 1];
    const tiles = (tileRows[rows] ?? []).slice(0, quick ? 2 : 3);
    const lent = quick ? [{ LANES: lanes, STEPS: 1 }] : lending(lanes);
    return workgroups.flatMap((WORKGROUP) =>
      tiles.flatMap((ROWS) =>
        vecs.flatMap((VECS) => lent.map((how) => ({ shader: "matmul" as const, WORKGROUP, ROWS, VECS, ...how }))),
      ),
    );
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
        return {
          forward: (k) => matmul(k, x, linear),
          expected(i) {
            const [row, column] = [Math.floor(i / columns), i % columns];
            let value = 0;
            let size = 0;
            for (let k = 0; k < inputs; k++) {
              const product = valueAt(row * inputs + k, seeds.x) * valueAt(column * inputs + k, seeds.weight);
              value += product;
              size += Math.abs(product);
            }
            return { value, tolerance: inputs * unit * size };
          },
          close: () => tensors.free(),
        };
      },
    };
  },
};
