// Some rows of a tensor, as one after another.

import { ShapeError } from "../gpu/errors.ts";
import type { Recorder } from "../gpu/recorder.ts";
import { expectShape, type Tensor } from "../gpu/tensor.ts";

const lanes = 64;

/**
 * x (rows, width), picks (items) u32 row numbers -> (items, width)
 * @param into a tensor of that shape, f32, to be written; left out: scratch.
 */
export function selectRows(k: Recorder, x: Tensor, picks: Tensor, into?: Tensor): Tensor {
  return select(k, x, picks, 0, into);
}

/** One row of each item. x (items * rows of an item, width), picks (items) u32 row numbers within the item -> (items, width) */
export function selectRowOfEach(k: Recorder, x: Tensor, picks: Tensor): Tensor {
  const [rows = 0] = expectShape("selectRowOfEach", x, ["rows", "width"]);
  const [items = 0] = expectShape("selectRowOfEach", picks, ["items"]);
  if (rows % items !== 0) throw new ShapeError(`selectRowOfEach: expected rows of ${items} items, got ${rows}`);
  return select(k, x, picks, rows / items);
}

function select(k: Recorder, x: Tensor, picks: Tensor, itemRows: number, into?: Tensor): Tensor {
  const [width = 0] = expectShape("selectRows", x, ["rows", "width"]).slice(1);
  const [items = 0] = expectShape("selectRows", picks, ["items"], "u32");
  if (into) expectShape("selectRows", into, [items, width], "f32");
  const y = into ?? k.scratch("selected", [items, width]);
  k.launch("select-rows", {
    inputs: { x, picks },
    outputs: { y },
    params: { width, itemRows },
    constants: { lanes },
    workgroups: [Math.ceil(width / lanes), items],
  });
  return y;
}
