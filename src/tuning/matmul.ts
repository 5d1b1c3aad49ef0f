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

function parts(shapeClass: string): { type: (typeof matmulTypes)[number]; rows: string } {
  const type = matmulTypes.find((each) => shapeClass.startsWith(`${each}, `)) ?? "f32";
  return { type, rows: shapeClass.slice(type.length + 2) };
}

/** Ways to load inputs: in steps of one and, where they are lent, of two. */
function lending(LANES: number, quick: boolean): { readonly LANES: number; readonly STEPS: number }[] {
  const steps = LANES === 1 ? [1] : quick ? [2] : [2, 1];
  return steps.map((STEPS) => ({ LANES, STEPS }));
}

export const tunedMatmul: TunedOperation<MatmulVariant> = {
  ...matmulOperation,
  candidates(shapeClass, { softwareAdapter, lanes, quick }) {
    const { rows } = parts(shapeClass);
    const groups = softwareAdapter ? [1] : [1, 2, 4];
    const workgroups = (quick ? groups.slice(0, 1) : groups).map((count) => count * lanes);
    const vecs = !softwareAdapter ? [4, 2, 1] : rows === "1 row" ? [8, 4, 2, 1] : [4, 2];
    const tiles = (tileRows[rows] ?? []).slice(0, quick ? 2 : 3);
    // Lending pays where a load costs as much when all invocations want the same.
    const loads = softwareAdapter ? [1, lanes].flatMap((LANES) => lending(LANES, quick)) : lending(1, quick);
    return workgroups.flatMap((WORKGROUP) =>
      tiles.flatMap((ROWS) =>
        vecs.flatMap((VECS) => loads.map((load) => ({ shader: "matmul" as const, WORKGROUP, ROWS, VECS, ...load }))),
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
