// y[r, j] = activation(sum_k x[r, k] * weight[k, c] + bias[j]) * factor[r, j] + scale * residual[r, j]
//     with j = firstColumn + c and scale = residualScale, for the few rows of decoding on a GPU
//
// x: (rows, inputs) f32   weight: (inputs, stride) f32, or f16 packed in pairs along a row, or whole numbers of 8 or 4 bits
// with scales, as quantize-weight.wgsl writes them; stride is a multiple of 4
// bias: (columns)   factor, residual, y: (rows, columns) f32; all row-major. One launch fills `width` columns from `firstColumn` on.
//
// Columns alone are too few threads for a GPU's memory: a workgroup takes GROUPS groups of four columns, and SLICES lanes for
// each of them share the inputs. In every step it copies its share of all rows' inputs into workgroup memory, rounded once;
// meanwhile each lane's weights of TURNS fours of inputs of the next step are on their way. At the end the slices are added up
// in workgroup memory. The grid's y deals out ROWS rows each.
//
// Numerical choice: an element is SLICES chains of fma in f32, each over its own fours of inputs in ascending order, added up in
// ascending order of slices. A row's bits do not depend on the other rows nor on ROWS. With weights other than f32 each x
// is rounded to f16 first, by integer arithmetic.

const WEIGHT = 0u; // 0 f32, 1 f16, 2 int8, 3 int4
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
  if (WEIGHT != 0u) {
    return vec4f(roundToHalf(values.x), roundToHalf(values.y), roundToHalf(values.z), roundToHalf(values.w));
  }
  return values;
}

/// Inputs of a column that share a scale, and words of whole numbers that these are.
const GROUP = 32u;
const WORDS = select(4u, 8u, WEIGHT == 2u);

/// What a slice holds of four columns and four inputs as it is stored: f32 and f16 a vector for each input; whole numbers the
/// words of the columns, then their scales.
const STORED = select(4u, 2u, WEIGHT >= 2u);

/// Past the last input or column others are read, which meet zeros or are not kept.
fn storedWeights(four: u32, group: u32) -> array<vec4<u32>, STORED> {
  let groups = params.stride / 4u;
  let column = min(group, groups - 1u);
  var stored: array<vec4<u32>, STORED>;
  if (WEIGHT >= 2u) {
    let held = min(four, (params.inputs - 1u) / 4u);
    let start = 4u * held / GROUP * groups * (2u * WORDS + 1u);
    let words = start + 2u * (4u * held % GROUP / (GROUP / WORDS) * groups + column);
    stored[0] = vec4<u32>(weight[words], weight[words + 1u]);
    if (WEIGHT == 3u && held % 2u == 1u) {
      stored[0] >>= vec4<u32>(16u);
    }
    stored[1] = vec4<u32>(weight[start + 2u * WORDS * groups + column], 0u, 0u);
    return stored;
  }
  for (var i = 0u; i < 4u; i++) {
    let at = min(4u * four + i, params.inputs - 1u) * groups + column;
    if (WEIGHT == 1u) {
      stored[i % STORED] = vec4<u32>(weight[at], 0u, 0u);
    } else {
      stored[i % STORED] = vec4<u32>(weight[2u * at], weight[2u * at + 1u]);
    }
  }
  return stored;
}

/// The weights of the i-th of four inputs. A whole number times its bf16 scale is exact.
fn fourWeights(stored: array<vec4<u32>, STORED>, i: u32) -> vec4f {
  if (WEIGHT >= 2u) {
    let bits = select(4u, 8u, WEIGHT == 2u);
    let whole = bitcast<vec4<i32>>(stored[0] << vec4<u32>(32u - bits - bits * i)) >> vec4<u32>(32u - bits);
    let pairs = stored[1].xy;
    let scales = vec4<u32>(pairs.x << 16u, pairs.x & 0xffff0000u, pairs.y << 16u, pairs.y & 0xffff0000u);
    return vec4f(whole) * bitcast<vec4f>(scales);
  }
  let own = stored[i % STORED];
  if (WEIGHT == 1u) {
    return vec4f(unpack2x16float(own.x), unpack2x16float(own.y));
  }
  return bitcast<vec4f>(own);
}

/// What a slice multiplies in one step.
fn weightsOfStep(step: u32, slice: u32, group: u32) -> array<array<vec4<u32>, STORED>, TURNS> {
  var weights: array<array<vec4<u32>, STORED>, TURNS>;
  for (var turn = 0u; turn < TURNS; turn++) {
    weights[turn] = storedWeights(step * STEP_FOURS + turn * SLICES + slice, group);
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
  var next: array<array<vec4<u32>, STORED>, TURNS>;
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
        let four = fourWeights(weights[turn], i);
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
