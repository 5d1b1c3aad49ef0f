// y[b, 0] = classEmbedding + position[0]        y[b, 1 + i] = x[b, i] + position[1 + i]
//
// x: (batch * patches, width)   classEmbedding: (width)   position: (patches + 1, width)
// y: (batch * (patches + 1), width); all f32, row-major. One invocation computes one element of y: one addition.

const WORKGROUP = 64u;

struct Params {
  count: u32,
  patches: u32,
  width: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> classEmbedding: array<f32>;
@group(0) @binding(2) var<storage, read> position: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) lane: u32) {
  let element = (id.x + id.y * 65535u) * WORKGROUP + lane;
  if (element >= params.count) {
    return;
  }
  let column = element % params.width;
  let token = element / params.width % (params.patches + 1u);
  let item = element / (params.width * (params.patches + 1u));
  var embedded = classEmbedding[column];
  if (token > 0u) {
    embedded = x[(item * params.patches + token - 1u) * params.width + column];
  }
  y[element] = embedded + position[token * params.width + column];
}
