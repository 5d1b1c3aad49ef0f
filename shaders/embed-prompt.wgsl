// x[item, t, d] = prompt[item, t, d] + positions[t + offset, d]   for the image slots t < queries
//
// prompt: (items, itemStride), each item (queries, width) with padding behind it. positions: (table rows, width); without
// `hasPositions` there are none to add.
// x: (items * tokens, width), tokens >= queries; rows of text and padding are left alone.
// One invocation per element; f16 values are read from packed pairs, low half first, and added in f32.
const lanes = 64u;
const promptHalf = false;
const hasPositions = true;
const positionsHalf = false;

struct Params {
  width: u32,
  tokens: u32,
  itemStride: u32,
  offset: u32,
}

@group(0) @binding(0) var<storage, read> prompt: array<u32>;
@group(0) @binding(1) var<storage, read> positions: array<u32>;
@group(0) @binding(2) var<storage, read_write> x: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

fn promptAt(index: u32) -> f32 {
  if (promptHalf) {
    return unpack2x16float(prompt[index >> 1u])[index & 1u];
  }
  return bitcast<f32>(prompt[index]);
}

fn positionAt(index: u32) -> f32 {
  if (positionsHalf) {
    return unpack2x16float(positions[index >> 1u])[index & 1u];
  }
  return bitcast<f32>(positions[index]);
}

@compute @workgroup_size(lanes)
fn embedPrompt(@builtin(global_invocation_id) at: vec3<u32>) {
  let d = at.x;
  let t = at.y;
  let item = at.z;
  if (d >= params.width) {
    return;
  }
  var value = promptAt(item * params.itemStride + t * params.width + d);
  if (hasPositions) {
    value += positionAt((t + params.offset) * params.width + d);
  }
  x[(item * params.tokens + t) * params.width + d] = value;
}
