// Each head of a row is `parts` equal parts of 2 * half values; part p is turned by the row's p-th position:
//
//   y[r, h, p, i]        = x[r, h, p, i]        * cos_i - x[r, h, p, i + half] * sin_i
//   y[r, h, p, i + half] = x[r, h, p, i + half] * cos_i + x[r, h, p, i]        * sin_i     for i < half
//
// with (cos_i, sin_i) = turns[position, i] and position = positions[r * stride + column + p].
// y: (rows, heads * parts * 2 * half) f32; x: as many columns, the first ones of rows that are `width` wide.
// turns: (positions, half) of (cos, sin) f32. positions: (rows, stride) u32, of which `parts` from `column` on are read. A row
// with no position becomes zeros.
// One invocation per (i, part of a head, row).
//
// Numerical choice: cosines and sines are read and not computed here, because WGSL promises no more than 2^-11 of them, and
// nothing beyond pi.
const lanes = 64u;
const none = 0xffffffffu;

struct Params {
  rows: u32,
  blocks: u32,
  parts: u32,
  half: u32,
  stride: u32,
  column: u32,
  width: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> turns: array<vec2f>;
@group(0) @binding(2) var<storage, read> positions: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

@compute @workgroup_size(lanes)
fn rotary(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let pair = group.x * lanes + lane;
  let row = group.y + group.z * 65535u;
  let half = params.half;
  if (pair >= params.blocks * half || row >= params.rows) {
    return;
  }
  // A block is a part of a head.
  let block = pair / half;
  let i = pair % half;
  let position = positions[row * params.stride + params.column + block % params.parts];
  let first = (row * params.blocks + block) * 2u * half + i;
  let source = row * params.width + block * 2u * half + i;
  if (position == none) {
    y[first] = 0.0;
    y[first + half] = 0.0;
    return;
  }
  let turn = turns[position * half + i];
  let a = x[source];
  let b = x[source + half];
  y[first] = a * turn.x - b * turn.y;
  y[first + half] = b * turn.x + a * turn.y;
}
