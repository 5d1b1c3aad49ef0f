// attended[r, h, :] = sum_s w_s * sums_s[:] / sum_s w_s * total_s   with w_s = exp(highest_s - the largest of them)
//
// s runs over the spans of row r that hold a position it sees, in order; cached-attention leaves for each of them
// partial[r, h, s, :] = (sums, total, highest), f32: (rows, heads, spans, headDim + 2). Rows are counted from firstRow on.
// cursors: (rows) of (token, position, slot, sequence). attended: (rows, heads, headDim) f32; a row without position becomes
// zeros. One workgroup per (head, row).
//
// Numerical choice: spans beyond those that a row sees are never read, and a single one gives what it would have given
// alone, so that a row's bits do not depend on how many positions there could be.
const lanes = 64u;
const headDim = 8u;
const span = 128u;
const hasContexts = false;
/// Less than every score.
const lowest = -3.4028234e38f;

struct Params {
  heads: u32,
  spans: u32,
  firstRow: u32,
}

@group(0) @binding(0) var<storage, read> partial: array<f32>;
@group(0) @binding(1) var<storage, read> cursors: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> contexts: array<u32>;
@group(0) @binding(3) var<storage, read_write> attended: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

@compute @workgroup_size(lanes)
fn joinSpans(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let head = group.x;
  let row = params.firstRow + group.y;
  // `none` + 1 wraps to zero visible positions.
  var visible = cursors[row].y + 1u;
  if (hasContexts && visible > 0u) {
    visible = max(visible, contexts[cursors[row].w]);
  }
  let count = (visible + span - 1u) / span;
  let first = (group.y * params.heads + head) * params.spans;
  var highest = lowest;
  for (var s = 0u; s < count; s++) {
    highest = max(highest, partial[(first + s) * (headDim + 2u) + headDim + 1u]);
  }
  for (var d = lane; d < headDim; d += lanes) {
    var sum = 0.0;
    var total = 0.0;
    for (var s = 0u; s < count; s++) {
      let at = (first + s) * (headDim + 2u);
      let weight = exp(partial[at + headDim + 1u] - highest);
      sum = fma(weight, partial[at + d], sum);
      total = fma(weight, partial[at + headDim], total);
    }
    attended[(row * params.heads + head) * headDim + d] = select(0.0, sum / total, visible > 0u);
  }
}
