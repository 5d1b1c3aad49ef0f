// y[r, j] = activation(sum_k x[r, k] * weight[k, c] + bias[j]) * factor[r, j] + scale * residual[r, j]
//     with j = firstColumn + c and scale = residualScale, for many rows on a GPU
//
// x: (rows, inputs) f32   weight: (inputs, stride) f32, or f16 packed in pairs along a row, or whole numbers of 8 or 4 bits
// with scales, as quantize-weight.wgsl writes them; stride is a multiple of 4
// bias: (columns)   factor, residual, y: (rows, columns) f32; all row-major. One launch fills `width` columns from `firstColumn` on.
//
// A workgroup of ROW_LANES x COLUMN_LANES computes a tile of ROWS rows and VECS groups of four columns for each lane. Step by
// step it copies DEPTH inputs of its rows and of its columns into workgroup memory, zeros where there are none, and every
// lane reads from there: an x serves all columns of the tile, a weight all its rows.
//
// Numerical choice: as in matmul.wgsl every element is one chain of fma over ascending k in f32, so that a row's bits depend
// neither on the other rows nor on the tile; what is filled up with zeros adds nothing. A whole number times its scale is
// exact. With weights other than f32 each x is rounded to f16 first, by integer arithmetic.

const WEIGHT = 0u; // 0 f32, 1 f16, 2 int8, 3 int4
const FOURS = false;
const ACTIVATION = 0u; // 0 none, 1 gelu, 2 relu, 3 quick gelu, 4 tanh gelu, 5 silu
const HAS_BIAS = true;
const HAS_FACTOR = false;
const HAS_RESIDUAL = false;
const ROW_LANES = 8u;
const COLUMN_LANES = 8u;
const ROWS = 8u; // a multiple of 4
const VECS = 2u;
const DEPTH = 16u; // a multiple of 4

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

const LANES = ROW_LANES * COLUMN_LANES;
const TILE_ROWS = ROW_LANES * ROWS;
const TILE_GROUPS = COLUMN_LANES * VECS;

// Four rows' values of one input lie together.
var<workgroup> tileX: array<vec4f, DEPTH * TILE_ROWS / 4u>;
var<workgroup> tileWeights: array<vec4f, DEPTH * TILE_GROUPS>;

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

/// Four neighbouring weights of a row of them, zeros past the last row and the last column.
fn fourWeights(row: u32, group: u32) -> vec4f {
  let groups = params.stride / 4u;
  if (row >= params.inputs || group >= groups) {
    return vec4f();
  }
  let at = row * groups + group;
  if (WEIGHT == 1u) {
    let pairs = weight[at];
    return vec4f(unpack2x16float(pairs.x), unpack2x16float(pairs.y));
  }
  return vec4f(bitcast<vec2f>(weight[2u * at]), bitcast<vec2f>(weight[2u * at + 1u]));
}

/// Inputs of a column that share a scale, and words of whole numbers that these are.
const GROUP = 32u;
const WORDS = select(4u, 8u, WEIGHT == 2u);

/// The weights of four inputs of four neighbouring columns, a column of the matrix for each input; zeros past the last ones.
fn packedWeights(four: u32, group: u32) -> mat4x4f {
  let groups = params.stride / 4u;
  if (4u * four >= params.inputs || group >= groups) {
    return mat4x4f();
  }
  let start = 4u * four / GROUP * groups * (2u * WORDS + 1u);
  let at = start + 2u * (4u * four % GROUP / (GROUP / WORDS) * groups + group);
  var words = vec4<u32>(weight[at], weight[at + 1u]);
  if (WEIGHT == 3u && four % 2u == 1u) {
    words >>= vec4<u32>(16u);
  }
  let pairs = weight[start + 2u * WORDS * groups + group];
  let scales = bitcast<vec4f>(vec4<u32>(pairs.x << 16u, pairs.x & 0xffff0000u, pairs.y << 16u, pairs.y & 0xffff0000u));
  let bits = select(4u, 8u, WEIGHT == 2u);
  var weights: mat4x4f;
  for (var i = 0u; i < 4u; i++) {
    let whole = bitcast<vec4<i32>>(words << vec4<u32>(32u - bits - bits * i)) >> vec4<u32>(32u - bits);
    weights[i] = vec4f(whole) * scales;
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
  // Tiles of rows are dealt over y and z, because one dimension holds 65535 workgroups.
  let firstRow = (tile.y + tile.z * 65535u) * TILE_ROWS;
  let firstGroup = tile.x * TILE_GROUPS;
  let rowLane = lane / COLUMN_LANES;
  let columnLane = lane % COLUMN_LANES;

  var sums: array<array<vec4f, VECS>, ROWS>;
  for (var first = 0u; first < params.inputs; first += DEPTH) {
    for (var i = lane; i < TILE_ROWS / 4u * (DEPTH / 4u); i += LANES) {
      let rowFour = i / (DEPTH / 4u);
      let four = i % (DEPTH / 4u);
      var block: mat4x4f;
      for (var r = 0u; r < 4u; r++) {
        block[r] = fourInputs(firstRow + 4u * rowFour + r, first / 4u + four);
      }
      block = transpose(block);
      for (var k = 0u; k < 4u; k++) {
        tileX[(4u * four + k) * (TILE_ROWS / 4u) + rowFour] = block[k];
      }
    }
    if (WEIGHT >= 2u) {
      for (var i = lane; i < DEPTH / 4u * TILE_GROUPS; i += LANES) {
        let four = i / TILE_GROUPS;
        let weights = packedWeights(first / 4u + four, firstGroup + i % TILE_GROUPS);
        for (var k = 0u; k < 4u; k++) {
          tileWeights[(4u * four + k) * TILE_GROUPS + i % TILE_GROUPS] = weights[k];
        }
      }
    } else {
      for (var i = lane; i < DEPTH * TILE_GROUPS; i += LANES) {
        tileWeights[i] = fourWeights(first + i / TILE_GROUPS, firstGroup + i % TILE_GROUPS);
      }
    }
    workgroupBarrier();
    for (var k = 0u; k < DEPTH; k++) {
      var weights: array<vec4f, VECS>;
      for (var v = 0u; v < VECS; v++) {
        weights[v] = tileWeights[k * TILE_GROUPS + columnLane + v * COLUMN_LANES];
      }
      for (var fours = 0u; fours < ROWS / 4u; fours++) {
        let scales = tileX[k * (TILE_ROWS / 4u) + rowLane * (ROWS / 4u) + fours];
        for (var r = 0u; r < 4u; r++) {
          for (var v = 0u; v < VECS; v++) {
            sums[4u * fours + r][v] = fma(vec4f(scales[r]), weights[v], sums[4u * fours + r][v]);
          }
        }
      }
    }
    workgroupBarrier();
  }

  for (var r = 0u; r < ROWS; r++) {
    let row = firstRow + rowLane * ROWS + r;
    for (var v = 0u; v < VECS; v++) {
      for (var j = 0u; j < 4u; j++) {
        let c = (firstGroup + columnLane + v * COLUMN_LANES) * 4u + j;
        if (row < params.rows && c < params.width) {
          let column = params.firstColumn + c;
          y[row * params.columns + column] = finish(sums[r][v][j], row, column);
        }
      }
    }
  }
}
