// Some rows of a tensor, as one after another.

import type { Recorder } from "../gpu/recorder.ts";
import { expectShape, type Tensor } from "../gpu/tensor.ts";

const lanes = 64;

/** x (rows, width), picks (items) u32 row numbers -> (items, width) */
export function selectRows(k: Recorder, x: Tensor, picks: Tensor): Tensor {
  const [width = 0] = expectShape("selectRows", x, ["rows", "width"]).slice(1);
  const [items = 0] = expectShape("selectRows", picks, ["items"]);
  const y = k.scratch("selected", [items, width]);
  k.launch("select-rows", {
    inputs: { x, picks },
    outputs: { y },
    params: { width },
    constants: { lanes },
    workgroups: [Math.ceil(width / lanes), items],
  });
  return y;
}
