// y[r, j] = activation(sum_k x[r, k] * weight[k, c] + bias[j]) * factor[r, j] + scale * residual[r, j]
//     with j = firstColumn + c and scale = residualScale, for the few rows of decoding on a GPU
//
// x: (rows, inputs) f32   weight: (inputs, stride) f32, or f16 packed in pairs along a row; stride is a multiple of 4
// bias: (columns)   factor, residual, y: (rows, columns) f32; all row-major. One launch fills `width` columns from `firstColumn` on.
//
// Columns alone are too few threads for a GPU's memory: a workgroup takes GROUPS groups of four columns, and SLICES lanes for
// each of them share the inputs. In every step it copies its share of all rows' inputs into workgroup memory, rounded once;
// meanwhile each lane's 4 * TURNS weights of the next step are on their way. At the end the slices are added up
// in workgroup memory. The grid's y deals out ROWS rows each.
//
// Numerical choice: an element is SLICES chains of fma in f32, each over its own fours of inputs in ascending order, added up in
// ascending order of slices. A row's bits do not depend on the other rows nor on ROWS. With F16 each x is rounded to f16
// first, by integer arithmetic.

const F16 = false;
const FOURS = false;
const ACTIVATION = 0u; // 0 none, 1 gelu, 2 relu, 3 quick gelu, 4 tanh gelu, 5 silu
const HAS_BIAS = true;
const HAS_FACTOR = false;
const HAS_RESIDUAL = false;
const ROWS = 4u;
const GROUPS = 8u;
const SLICES = 32u;
const TURNS = 4u; // fours of inputs that a slice takes in a step

struct Params {
  rows: u32,
  inputs: u32,
  columns: u32,
  firstColumn: u32,
  width: u32,
  stride: u32,
  residualScale: f32,
}

@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read> weight: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> factor: array<f32>;
@group(0) @binding(4) var<storage, read> residual: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
@group(0) @binding(6) var<uniform> params: Params;

const LANES = GROUPS * SLICES;
const STEP_FOURS = SLICES * TURNS;
/// Rows whose slices are added up at once.
const ADDED_ROWS = min(ROWS, 4u);

/// Inputs of a step, (ROWS, STEP_FOURS); afterwards the slices' sums, (SLICES, ADDED_ROWS, GROUPS).
var<workgroup> held: array<vec4f, max(ROWS * STEP_FOURS, SLICES * ADDED_ROWS * GROUPS)>;

/// The f16 nearest to `value`, ties to even; inf above 65504 as in PyTorch.
fn roundToHalf(value: f32) -> f32 {
  let bits = bitcast<u32>(value);
  let size = bits & 0x7fffffffu;
  let normal = (size + 0xfffu + ((size >> 13u) & 1u)) & 0xffffe000u;
  // Below 2^-14 halves are whole multiples of 2^-24.
  let small = bitcast<u32>(round(bitcast<f32>(size) * 0x1p+24f) * 0x1p-24f);
  var rounded = select(normal, small, size < 0x38800000u);
  rounded = select(rounded, 0x7f800000u, size >= 0x477ff000u);
  rounded = select(rounded, size, size > 0x7f800000u);
  return bitcast<f32>(rounded | (bits & 0x80000000u));
}

/// Four neighbouring inputs of a row, zeros past its end and below the last row.
fn fourInputs(row: u32, four: u32) -> vec4f {
  if (row >= params.rows || 4u * four >= params.inputs) {
    return vec4f();
  }
  var values: vec4f;
  if (FOURS) {
    values = x[row * (params.inputs / 4u) + four];
  } else {
    for (var i = 0u; i < min(4u, params.inputs - 4u * four); i++) {
      let at = row * params.inputs + 4u * four + i;
      values[i] = x[at / 4u][at % 4u];
    }
  }
  if (F16) {
    return vec4f(roundToHalf(values.x), roundToHalf(values.y), roundToHalf(values.z), roundToHalf(values.w));
  }
  return values;
}

/// Four neighbouring weights of a row of them as they are stored; past the last row or column others, which meet zeros or
/// are not kept.
fn storedWeights(row: u32, group: u32) -> vec4<u32> {
  let groups = params.stride / 4u;
  let at = min(row, params.inputs - 1u) * groups + min(group, groups - 1u);
  if (F16) {
    return vec4<u32>(weight[at], 0u, 0u);
  }
  return vec4<u32>(weight[2u * at], weight[2u * at + 1u]);
}

fn fourWeights(stored: vec4<u32>) -> vec4f {
  if (F16) {
    return vec4f(unpack2x16float(stored.x), unpack2x16float(stored.y));
  }
  return bitcast<vec4f>(stored);
}

/// What a slice multiplies in one step.
fn weightsOfStep(step: u32, slice: u32, group: u32) -> array<vec4<u32>, 4u * TURNS> {
  var weights: array<vec4<u32>, 4u * TURNS>;
  for (var turn = 0u; turn < TURNS; turn++) {
    let four = step * STEP_FOURS + turn * SLICES + slice;
    for (var i = 0u; i < 4u; i++) {
      weights[4u * turn + i] = storedWeights(4u * four + i, group);
    }
  }
  return weights;
}

/// v / 2 * (1 + erf(v / sqrt(2))), written as max(v, 0) - |v| / 2 * erfc(t) with t = |v| / sqrt(2) and
/// erfc(t) = exp(-t * p(t)), so that nothing cancels. p: a polynomial fitted on [0, 4.2] that leaves an error of 2e-9
/// in gelu; beyond it erfc is under 3e-9 and counts as 0.
fn gelu(v: f32) -> f32 {
  let size = abs(v);
  let t = size * 0.70710678f;
  var p = -6.1991952e-06f;
  p = fma(p, t, 8.6951171e-05f);
  p = fma(p, t, -5.0717732e-04f);
  p = fma(p, t, 1.3952886e-03f);
  p = fma(p, t, 1.7545550e-04f);
  p = fma(p, t, -1.9392719e-02f);
  p = fma(p, t, 1.0287256e-01f);
  p = fma(p, t, 6.3660085e-01f);
  p = fma(p, t, 1.1283805e+00f);
  let complement = select(exp(-t * p), 0.0, t > 4.2);
  return max(v, 0.0) - 0.5 * size * complement;
}

/// v / 2 * (1 + tanh(u)) with u = sqrt(2 / pi) * (v + 0.044715 * v^3), written as max(v, 0) - |v| / (1 + exp(2 * |u|)),
/// so that nothing cancels; the exponent is kept where exp is finite.
fn tanhGelu(v: f32) -> f32 {
  let size = abs(v);
  let twice = 1.5957691f * size * fma(0.044715f * size, size, 1.0);
  return max(v, 0.0) - size / (1.0 + exp(min(twice, 80.0)));
}

/// v * sigmoid(slope * v), from exp of what is never positive, so that nothing overflows.
fn gated(v: f32, slope: f32) -> f32 {
  let e = exp(-slope * abs(v));
  return v * select(1.0, e, v < 0.0) / (1.0 + e);
}

fn activated(v: f32) -> f32 {
  switch (ACTIVATION) {
    case 1u: { return gelu(v); }
    case 2u: { return max(v, 0.0); }
    case 3u: { return gated(v, 1.702); }
    case 4u: { return tanhGelu(v); }
    case 5u: { return gated(v, 1.0); }
    default: { return v; }
  }
}

fn finish(sum: f32, row: u32, column: u32) -> f32 {
  var value = sum;
  if (HAS_BIAS) {
    value += bias[column];
  }
  value = activated(value);
  if (HAS_FACTOR) {
    value *= factor[row * params.columns + column];
  }
  if (HAS_RESIDUAL) {
    value += params.residualScale * residual[row * params.columns + column];
  }
  return value;
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) tile: vec3u, @builtin(local_invocation_index) lane: u32) {
  let firstRow = (tile.y + tile.z * 65535u) * ROWS;
  let slice = lane / GROUPS;
  let group = tile.x * GROUPS + lane % GROUPS;

  var sums: array<vec4f, ROWS>;
  let steps = (params.inputs + 4u * STEP_FOURS - 1u) / (4u * STEP_FOURS);
  var next: array<vec4<u32>, 4u * TURNS>;
  for (var ahead = 0u; ahead <= steps; ahead++) {
    let weights = next;
    next = weightsOfStep(ahead, slice, group);
    if (ahead == 0u) {
      continue;
    }
    for (var i = lane; i < ROWS * STEP_FOURS; i += LANES) {
      held[i] = fourInputs(firstRow + i / STEP_FOURS, (ahead - 1u) * STEP_FOURS + i % STEP_FOURS);
    }
    workgroupBarrier();
    for (var turn = 0u; turn < TURNS; turn++) {
      for (var i = 0u; i < 4u; i++) {
        let four = fourWeights(weights[4u * turn + i]);
        for (var r = 0u; r < ROWS; r++) {
          let scale = held[r * STEP_FOURS + turn * SLICES + slice][i];
          sums[r] = fma(vec4f(scale), four, sums[r]);
        }
      }
    }
    workgroupBarrier();
  }

  for (var first = 0u; first < ROWS; first += ADDED_ROWS) {
    for (var r = 0u; r < ADDED_ROWS; r++) {
      held[(slice * ADDED_ROWS + r) * GROUPS + lane % GROUPS] = sums[first + r];
    }
    workgroupBarrier();
    for (var e = lane; e < ADDED_ROWS * GROUPS * 4u; e += LANES) {
      let place = e / 4u;
      var sum = held[place][e % 4u];
      for (var s = 1u; s < SLICES; s++) {
        sum += held[s * ADDED_ROWS * GROUPS + place][e % 4u];
      }
      let row = firstRow + first + place / GROUPS;
      let c = (tile.x * GROUPS + place % GROUPS) * 4u + e % 4u;
      if (row < params.rows && c < params.width) {
        let column = params.firstColumn + c;
        y[row * params.columns + column] = finish(sum, row, column);
      }
    }
    workgroupBarrier();
  }
}
