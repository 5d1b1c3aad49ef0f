// Rotary positions: pairs of a head's values turned by angles that grow with the position. Shader: shaders/rotary.wgsl

import { ShapeError } from "../gpu/errors.ts";
import type { Recorder } from "../gpu/recorder.ts";
import { expectShape, type Tensor } from "../gpu/tensor.ts";
import { overTwo } from "./workgroups.ts";

const lanes = 64;

/** The positions of rows: as many columns as a head has parts, from `column` on. */
export interface RotaryPositions {
  /** (rows, any) u32; below the rows of `turns`, or `none` for a row that is padding. */
  readonly rows: Tensor;
  readonly column: number;
}

export interface RotaryHeads {
  readonly heads: number;
  readonly headWidth: number;
}

/**
 * Value i of a part and the one half a part behind it, turned as one pair. A head has one part with one position, or
 * several equal ones with a position each: as many as the width of `turns` goes into a head.
 * @param x (rows, at least heads * headWidth) f32, its first columns -> (rows, heads * headWidth); a row without position
 * becomes zeros.
 * @param turns (positions, width of a part) f32: pairs of cosine and sine; see models/rotary-turns.ts.
 * @throws ShapeError
 */
export function rotary(k: Recorder, x: Tensor, turns: Tensor, positions: RotaryPositions, sizes: RotaryHeads): Tensor {
  const { heads, headWidth } = sizes;
  const [rows = 0, width = 0] = expectShape("rotary", x, ["rows", "width"], "f32");
  const [, partWidth = 0] = expectShape("rotary", turns, ["positions", "part width"], "f32");
  const [stride = 0] = expectShape("rotary", positions.rows, [rows, "stride"], "u32");
  if (partWidth % 2 !== 0 || headWidth % partWidth !== 0) {
    throw new ShapeError(
      `rotary: expected parts of an even width in a head of ${headWidth}, got parts of ${partWidth}`,
    );
  }
  if (heads * headWidth > width) {
    throw new ShapeError(
      `rotary: expected ${heads} heads of ${headWidth} within a row of ${x.name}, got ${width} columns`,
    );
  }
  const parts = headWidth / partWidth;
  const blocks = heads * parts;
  if (positions.column + parts > stride) {
    throw new ShapeError(
      `rotary: expected ${parts} positions from column ${positions.column} within ${positions.rows.name}, ` +
        `got (${positions.rows.shape.join(", ")})`,
    );
  }
  const y = k.scratch("turned", [rows, heads * headWidth]);
  k.launch("rotary", {
    inputs: { x, turns, positions: positions.rows },
    outputs: { y },
    params: { rows, blocks, parts, half: partWidth / 2, stride, column: positions.column, width },
    constants: { lanes },
    workgroups: [Math.ceil((heads * headWidth) / 2 / lanes), ...overTwo(rows)],
  });
  return y;
}
