// pairs[r] = (min(p, c - 1), max(p, c - 1) - (c - 1))     p = position[r], c = contexts[sequence[r]]
//
// so that the rows of a context have their own position and 0, and those behind it the context's last position and 1, 2, 3, …
// cursors: (rows) of (token, position, slot, sequence). contexts: (sequences). pairs: (rows, 2). A row without position has
// no pair either. One invocation per row.
const lanes = 64u;
const none = 0xffffffffu;

struct Params {
  rows: u32,
}

@group(0) @binding(0) var<storage, read> cursors: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> contexts: array<u32>;
@group(0) @binding(2) var<storage, read_write> pairs: array<vec2<u32>>;
@group(0) @binding(3) var<uniform> params: Params;

@compute @workgroup_size(lanes)
fn blockPositions(@builtin(global_invocation_id) at: vec3<u32>) {
  let row = at.x;
  if (row >= params.rows) {
    return;
  }
  let position = cursors[row].y;
  if (position == none) {
    pairs[row] = vec2(none, none);
    return;
  }
  let last = contexts[cursors[row].w] - 1u;
  pairs[row] = vec2(min(position, last), max(position, last) - last);
}
