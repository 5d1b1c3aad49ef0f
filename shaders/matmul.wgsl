// y[r, j] = activation(sum_k x[r, k] * weight[k, c] + bias[j]) * factor[r, j] + scale * residual[r, j]
//     with j = firstColumn + c and scale = residualScale
//
// x: (rows, inputs) f32   weight: (inputs, stride) f32, or f16 packed in pairs along a row, or whole numbers of 8 or 4 bits
// with scales, as quantize-weight.wgsl writes them; stride is a multiple of 4
// bias: (columns)   factor, residual, y: (rows, columns) f32; all row-major. One launch fills `width` columns from `firstColumn` on.
//
// One invocation keeps ROWS rows times VECS groups of four columns in registers and walks down k, so that each loaded
// weight serves ROWS rows and each x, the same for all invocations of a workgroup, serves its 4 * VECS columns.
// Neighbouring invocations take neighbouring groups of columns. No workgroup memory and no barriers: CPU drivers run
// one workgroup as one SIMD group, where both cost much and save nothing. There a load costs as much per invocation when all
// want the same as when each wants its own: so the invocations of a subgroup load LANES neighbouring inputs of a row, one
// each, and lend them to each other. Elsewhere (LANES = 1) each loads what it needs; with FOURS, where inputs is a multiple
// of 4 (of 8 for int4), four inputs of a row at once.
//
// Numerical choice: every element is one chain of fma over ascending k in f32, in every variant, so that a row's bits
// depend neither on the other rows nor on the tile. A whole number times its scale is exact in f32, so that packed weights
// give the bits that f32 weights of the same values give. With weights other than f32 each x is rounded to f16 first, by
// integer arithmetic: pack2x16float and quantizeToF16 truncate, flush or overflow differently on different drivers.

enable subgroups;

const WEIGHT = 0u; // 0 f32, 1 f16, 2 int8, 3 int4
const LANES = 1u; // at most WORKGROUP and the invocations of a subgroup; divides inputs
const STEPS = 1u; // inputs that a sum takes in between two looks at its loop; divides LANES
const FOURS = false;
const ACTIVATION = 0u; // 0 none, 1 gelu, 2 relu, 3 quick gelu, 4 tanh gelu, 5 silu
const HAS_BIAS = true;
const HAS_FACTOR = false;
const HAS_RESIDUAL = false;
const WORKGROUP = 8u;
const ROWS = 8u;
const VECS = 4u;

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

/// Four neighbouring weights; `group` counts fours from the start of the matrix.
fn fourWeights(group: u32) -> vec4f {
  if (WEIGHT == 1u) {
    let pairs = weight[group];
    return vec4f(unpack2x16float(pairs.x), unpack2x16float(pairs.y));
  }
  return vec4f(bitcast<vec2f>(weight[2u * group]), bitcast<vec2f>(weight[2u * group + 1u]));
}

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

fn input(value: f32) -> f32 {
  if (WEIGHT != 0u) {
    return roundToHalf(value);
  }
  return value;
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

fn finish(sum: f32, row: u32, column: u32) -> f32 {
  var value = sum;
  if (HAS_BIAS) {
    value += bias[column];
  }
  if (ACTIVATION == 1u) {
    value = gelu(value);
  }
  if (ACTIVATION == 2u) {
    value = max(value, 0.0);
  }
  if (ACTIVATION == 3u) {
    value = gated(value, 1.702);
  }
  if (ACTIVATION == 4u) {
    value = tanhGelu(value);
  }
  if (ACTIVATION == 5u) {
    value = gated(value, 1.0);
  }
  if (HAS_FACTOR) {
    value *= factor[row * params.columns + column];
  }
  if (HAS_RESIDUAL) {
    value += params.residualScale * residual[row * params.columns + column];
  }
  return value;
}

/// What an invocation takes of the row of weights that starts at group `start`; past its end the last group again.
fn weightsAt(start: u32, firstGroup: u32, groups: u32) -> array<vec4f, VECS> {
  var weights: array<vec4f, VECS>;
  for (var v = 0u; v < VECS; v++) {
    weights[v] = fourWeights(start + min(firstGroup + v * WORKGROUP, groups - 1u));
  }
  return weights;
}

/// What the invocation `lender` of the subgroup has loaded.
fn lent(value: f32, lender: u32) -> f32 {
  if (LANES == 1u) {
    return value;
  }
  return subgroupShuffle(value, lender);
}

/// Inputs of a column that share a scale, and inputs whose whole numbers of one column are a word.
const GROUP = 32u;
const IN_WORD = select(8u, 4u, WEIGHT == 2u);
const WORDS = GROUP / IN_WORD;
/// Inputs whose products are written out one behind another; with several rows more of them compile too long.
const AT_ONCE = select(4u, IN_WORD, ROWS == 1u);

/// Four neighbouring scales, which are bf16.
fn fourScales(at: u32) -> vec4f {
  let pairs = weight[at];
  return bitcast<vec4f>(vec4<u32>(pairs.x << 16u, pairs.x & 0xffff0000u, pairs.y << 16u, pairs.y & 0xffff0000u));
}

/// The words of four neighbouring columns.
fn fourWords(at: u32) -> vec4<u32> {
  return vec4<u32>(weight[at], weight[at + 1u]);
}

/// Whole numbers from the low half of words of int4, or from words of int8: the i-th of four.
fn wholeNumbers(words: vec4<u32>, i: u32) -> vec4f {
  if (WEIGHT == 2u) {
    return vec4f(bitcast<vec4<i32>>(words << vec4<u32>(24u - 8u * i)) >> vec4<u32>(24u));
  }
  return vec4f(bitcast<vec4<i32>>(words << vec4<u32>(28u - 4u * i)) >> vec4<u32>(28u));
}

/// Four inputs of a row from `first` on; 0 past the end.
fn fourInputs(row: u32, first: u32) -> vec4f {
  let at = row * params.inputs + first;
  var values: vec4f;
  if (FOURS) {
    values = x[at / 4u];
  }
  for (var i = 0u; i < 4u; i++) {
    if (FOURS) {
      values[i] = input(values[i]);
    } else if (first + i < params.inputs) {
      values[i] = input(x[(at + i) / 4u][(at + i) % 4u]);
    }
  }
  return values;
}

/// The sums with packed weights. A group of a column is WORDS words and a scale; first come the words of all columns, row
/// by row, then the scales.
fn packedSums(firstRow: u32, firstGroup: u32, groups: u32) -> array<array<vec4f, VECS>, ROWS> {
  var columns: array<u32, VECS>;
  for (var v = 0u; v < VECS; v++) {
    columns[v] = min(firstGroup + WORKGROUP * v, groups - 1u);
  }
  var sums: array<array<vec4f, VECS>, ROWS>;
  for (var first = 0u; first < params.inputs; first += GROUP) {
    let start = first / GROUP * groups * (2u * WORDS + 1u);
    var scales: array<vec4f, VECS>;
    for (var v = 0u; v < VECS; v++) {
      scales[v] = fourScales(start + 2u * WORDS * groups + columns[v]);
    }
    let end = min(first + GROUP, params.inputs);
    for (var k = first; k < end; k += IN_WORD) {
      var words: array<vec4<u32>, VECS>;
      var values: array<vec4f, ROWS>;
      for (var v = 0u; v < VECS; v++) {
        words[v] = fourWords(start + 2u * ((k - first) / IN_WORD * groups + columns[v]));
      }
      for (var part = 0u; part < IN_WORD; part += AT_ONCE) {
        for (var i = 0u; i < AT_ONCE; i++) {
          if (i % 4u == 0u) {
            for (var r = 0u; r < ROWS; r++) {
              values[r] = fourInputs(firstRow + r, k + part + i);
            }
          }
          for (var v = 0u; v < VECS; v++) {
            let weights = wholeNumbers(words[v], part + i) * scales[v];
            for (var r = 0u; r < ROWS; r++) {
              sums[r][v] = fma(vec4f(values[r][i % 4u]), weights, sums[r][v]);
            }
          }
        }
      }
    }
  }
  return sums;
}

@compute @workgroup_size(WORKGROUP)
fn main(
  @builtin(workgroup_id) tile: vec3u,
  @builtin(local_invocation_index) lane: u32,
  @builtin(subgroup_invocation_id) inSubgroup: u32,
) {
  // Tiles of rows come first, so that neighbours in time read the same weights; they are dealt over x and z, because one
  // dimension holds 65535 workgroups.
  let firstRow = (tile.x + tile.z * 65535u) * ROWS;
  let firstGroup = tile.y * WORKGROUP * VECS + lane;
  let groups = params.stride / 4u;

  // Rows and groups past the end are computed from whatever is read there, and are not stored.
  var sums: array<array<vec4f, VECS>, ROWS>;
  if (WEIGHT >= 2u) {
    sums = packedSums(firstRow, firstGroup, groups);
  } else if (FOURS) {
    let fours = params.inputs / 4u;
    for (var four = 0u; four < fours; four++) {
      var scales: array<vec4f, ROWS>;
      for (var r = 0u; r < ROWS; r++) {
        let values = x[(firstRow + r) * fours + four];
        scales[r] = vec4f(input(values.x), input(values.y), input(values.z), input(values.w));
      }
      for (var i = 0u; i < 4u; i++) {
        let weights = weightsAt((4u * four + i) * groups, firstGroup, groups);
        for (var r = 0u; r < ROWS; r++) {
          for (var v = 0u; v < VECS; v++) {
            sums[r][v] = fma(vec4f(scales[r][i]), weights[v], sums[r][v]);
          }
        }
      }
    }
  } else {
    for (var first = 0u; first < params.inputs; first += LANES) {
      var scales: array<f32, ROWS>;
      for (var r = 0u; r < ROWS; r++) {
        let at = (firstRow + r) * params.inputs + first + inSubgroup % LANES;
        scales[r] = input(x[at / 4u][at % 4u]);
      }
      for (var i = 0u; i < LANES; i += STEPS) {
        var weights: array<array<vec4f, VECS>, STEPS>;
        for (var s = 0u; s < STEPS; s++) {
          weights[s] = weightsAt((first + i + s) * groups, firstGroup, groups);
        }
        for (var r = 0u; r < ROWS; r++) {
          var scale: array<f32, STEPS>;
          for (var s = 0u; s < STEPS; s++) {
            scale[s] = lent(scales[r], i + s);
          }
          for (var v = 0u; v < VECS; v++) {
            for (var s = 0u; s < STEPS; s++) {
              sums[r][v] = fma(vec4f(scale[s]), weights[s][v], sums[r][v]);
            }
          }
        }
      }
    }
  }

  for (var r = 0u; r < ROWS; r++) {
    let row = firstRow + r;
    for (var v = 0u; v < VECS; v++) {
      for (var j = 0u; j < 4u; j++) {
        let c = (firstGroup + v * WORKGROUP) * 4u + j;
        if (row < params.rows && c < params.width) {
          let column = params.firstColumn + c;
          y[row * params.columns + column] = finish(sums[r][v][j], row, column);
        }
      }
    }
  }
}
