// y[item, to + t, :] = x[item, t, :]      for t < count
//
// x: (items * itemStride, width) with itemStride >= count, or (count, width) when every item gets the same rows
// (itemStride 0).
// y: (items * tokens, width), to + count <= tokens; its other rows are left alone. All f32.
// One invocation per element.
const lanes = 64u;

struct Params {
  width: u32,
  count: u32,
  tokens: u32,
  to: u32,
  /// Rows of x from one item to the next.
  itemStride: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<uniform> params: Params;

@compute @workgroup_size(lanes)
fn placeRows(@builtin(global_invocation_id) at: vec3<u32>) {
  let d = at.x;
  let t = at.y;
  let item = at.z;
  if (d >= params.width) {
    return;
  }
  let row = item * params.tokens + params.to + t;
  y[row * params.width + d] = x[(item * params.itemStride + t) * params.width + d];
}
