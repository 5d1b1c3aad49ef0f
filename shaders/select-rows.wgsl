// y[i, :] = x[i * itemRows + picks[i], :]
//
// x: (rows, width), y: (items, width) f32. picks: (items) u32: row numbers of x, or with itemRows those within each item.
// One invocation per element.
const lanes = 64u;

struct Params {
  width: u32,
  itemRows: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> picks: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

@compute @workgroup_size(lanes)
fn selectRows(@builtin(global_invocation_id) at: vec3<u32>) {
  let d = at.x;
  let item = at.y;
  if (d >= params.width) {
    return;
  }
  y[item * params.width + d] = x[(item * params.itemRows + picks[item]) * params.width + d];
}
