// y[r, c] = x[r mod xRows, c] + addend[r mod addendRows, c]
//
// x: (xRows, width)   addend: (addendRows, width)   y: (rows, width); all f32, row-major. The shorter one is repeated,
// which gives every item of a batch the same rows. One invocation computes one element of y.

const WORKGROUP = 64u;

struct Params {
  rows: u32,
  xRows: u32,
  addendRows: u32,
  width: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> addend: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) lane: u32) {
  let element = (id.x + id.y * 65535u) * WORKGROUP + lane;
  if (element >= params.rows * params.width) {
    return;
  }
  y[element] = x[element % (params.xRows * params.width)] + addend[element % (params.addendRows * params.width)];
}
