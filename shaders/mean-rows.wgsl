// y[item, c] = sum_t x[item, t, c] / count
//
// x: (items * count, width), y: (items, width); all f32, row-major. One invocation computes one element of y.
//
// Numerical choice: one chain of additions over the rows in f32, divided once at the end.

const WORKGROUP = 64u;

struct Params {
  items: u32,
  count: u32,
  width: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<uniform> params: Params;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) lane: u32) {
  let element = (id.x + id.y * 65535u) * WORKGROUP + lane;
  if (element >= params.items * params.width) {
    return;
  }
  let item = element / params.width;
  let column = element % params.width;
  var sum = 0.0;
  for (var t = 0u; t < params.count; t++) {
    sum += x[(item * params.count + t) * params.width + column];
  }
  y[element] = sum / f32(params.count);
}
