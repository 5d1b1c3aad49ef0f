// x[r, d] = weight[d, id[r]] + positions[position[r] + offset, d]
//
// weight: (width, stride), one segment of the tied head: column c is the embedding of id `firstId + c`; `count` ids lie
// in this segment. positions: (table rows, width). cursors: (rows) of (token, position, slot, sequence). x: (rows, width).
// Without `hasPositions` nothing is added.
// Launched once per segment: a row whose id lies elsewhere is left alone, so the segments together write every row.
// A row without position is padding; with `pads` = 1 it becomes zeros. A row with a position and no token is an image
// slot and belongs to embed-prompt.
// One invocation per element; f16 values are read from packed pairs, low half first, and added in f32.
const lanes = 64u;
const weightHalf = false;
const hasPositions = true;
const positionsHalf = false;
const none = 0xffffffffu;

struct Params {
  width: u32,
  stride: u32,
  firstId: u32,
  count: u32,
  offset: u32,
  pads: u32,
}

@group(0) @binding(0) var<storage, read> weight: array<u32>;
@group(0) @binding(1) var<storage, read> positions: array<u32>;
@group(0) @binding(2) var<storage, read> cursors: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> x: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

fn weightAt(index: u32) -> f32 {
  if (weightHalf) {
    return unpack2x16float(weight[index >> 1u])[index & 1u];
  }
  return bitcast<f32>(weight[index]);
}

fn positionAt(index: u32) -> f32 {
  if (positionsHalf) {
    return unpack2x16float(positions[index >> 1u])[index & 1u];
  }
  return bitcast<f32>(positions[index]);
}

@compute @workgroup_size(lanes)
fn embedTokens(@builtin(global_invocation_id) at: vec3<u32>) {
  let d = at.x;
  let row = at.y;
  if (d >= params.width) {
    return;
  }
  let token = cursors[row].x;
  let position = cursors[row].y;
  let place = row * params.width + d;
  if (position == none) {
    if (params.pads == 1u) {
      x[place] = 0.0;
    }
    return;
  }
  // Unsigned: an id below `firstId` wraps to a huge column, and so does `none`.
  let column = token - params.firstId;
  if (token == none || column >= params.count) {
    return;
  }
  var value = weightAt(d * params.stride + column);
  if (hasPositions) {
    value += positionAt((position + params.offset) * params.width + d);
  }
  x[place] = value;
}
