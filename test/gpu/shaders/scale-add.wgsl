// y[i] = x[i] * scale + bias[0]
const LANES = 8u;
const SQUARE = false;
override extra: f32 = 0.0;

struct Params {
  count: u32,
  scale: f32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> bias: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

@compute @workgroup_size(LANES)
fn main(@builtin(global_invocation_id) id: vec3u) {
  // A re-valued constant keeps its type: an i32 here would not compile.
  let lanes = LANES;
  let i = id.x / lanes * lanes + id.x % lanes;
  if (i >= params.count) { return; }
  var value = x[i] * params.scale + bias[0] + extra;
  if (SQUARE) { value = value * value; }
  y[i] = value;
}
