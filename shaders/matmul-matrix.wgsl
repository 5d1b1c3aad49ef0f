// y[r, j] = activation(sum_k x[r, k] * weight[k, c] + bias[j]) * factor[r, j] + scale * residual[r, j]
//     with j = firstColumn + c and scale = residualScale, multiplied in subgroup matrices (tensor cores)
//
// x: (rows, inputs) f32, or f16 packed in pairs with X_F16, where inputs is a multiple of 4   weight: (inputs, stride) f16
// packed in pairs along a row; stride is a multiple of 4   bias: (columns)   factor, residual, y: (rows, columns) f32
// All row-major. One launch fills `width` columns from `firstColumn` on.
//
// A workgroup computes a tile of TILE_ROWS x TILE_COLUMNS. Step by step it copies SLICES * DEPTH inputs of its rows and of its
// columns into workgroup memory, zeros where there are none, so that nothing below need look at edges. SUBGROUP_ROWS x
// SUBGROUP_COLUMNS subgroups share the tile, each with ROW_MATRICES x COLUMN_MATRICES result matrices of M x N; with SLICES
// there are that many of each, and every one of them adds up its own DEPTH inputs of a step: where few rows and columns give
// few tiles, that fills the machine and shortens the walk. Results go through workgroup memory, where slices are
// added, to the lanes that finish and store them.
//
// Numerical choice: x is rounded to f16 by integer arithmetic, as in matmul.wgsl; products are exact in f32 and sums are f32, in
// whatever order the matrix unit has for K of them, then over ascending steps, then over ascending slices. A row's bits
// depend neither on the other rows nor on its place in the tile.

enable f16;
enable subgroups;
enable chromium_experimental_subgroup_matrix;
requires subgroup_id;

const M = 8u;
const N = 8u;
const K = 8u;
const LANES = 32u; // of the workgroup, no fewer than its subgroups have
const SUBGROUP_ROWS = 2u;
const SUBGROUP_COLUMNS = 2u;
const ROW_MATRICES = 2u;
const COLUMN_MATRICES = 2u;
const STORED_MATRICES = 2u; // at once; it divides COLUMN_MATRICES
const SLICES = 1u;
const DEPTH = 32u; // a multiple of K and of 4
const X_F16 = false;
const FOURS = false;
const ACTIVATION = 0u; // 0 none, 1 gelu, 2 relu, 3 quick gelu, 4 tanh gelu, 5 silu
const HAS_BIAS = true;
const HAS_FACTOR = false;
const HAS_RESIDUAL = false;

struct Params {
  rows: u32,
  inputs: u32,
  columns: u32,
  firstColumn: u32,
  width: u32,
  stride: u32,
  residualScale: f32,
}

@group(0) @binding(0) var<storage, read> x: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read> weight: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> factor: array<f32>;
@group(0) @binding(4) var<storage, read> residual: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
@group(0) @binding(6) var<uniform> params: Params;

const TILE_ROWS = SUBGROUP_ROWS * ROW_MATRICES * M;
const TILE_COLUMNS = SUBGROUP_COLUMNS * COLUMN_MATRICES * N;
const TILE_FOURS = SLICES * DEPTH / 4u; // fours of inputs of a step
const TILE_GROUPS = TILE_COLUMNS / 4u;
// Rows of the tiles in memory are 16 bytes longer than they need be: neighbours then lie in different banks.
const X_STRIDE = TILE_FOURS + 2u;
const WEIGHT_STRIDE = TILE_GROUPS + 2u;
const SUBGROUPS = SLICES * SUBGROUP_ROWS * SUBGROUP_COLUMNS;
const STORED_COLUMNS = STORED_MATRICES * N;

var<workgroup> tileX: array<vec4<f16>, TILE_ROWS * X_STRIDE>;
var<workgroup> tileWeights: array<vec4<f16>, 4u * TILE_FOURS * WEIGHT_STRIDE>;
var<workgroup> stored: array<f32, SUBGROUPS * M * STORED_COLUMNS>;

/// The bits of the f16 nearest to `value`, ties to even; inf above 65504 as in PyTorch.
fn halfBits(value: f32) -> u32 {
  let bits = bitcast<u32>(value);
  let size = bits & 0x7fffffffu;
  let normal = (size - 0x38000000u + 0xfffu + ((size >> 13u) & 1u)) >> 13u;
  // Below 2^-14 halves are whole multiples of 2^-24.
  let small = u32(round(bitcast<f32>(size) * 0x1p+24f));
  var half = select(normal, small, size < 0x38800000u);
  half = select(half, 0x7c00u, size >= 0x477ff000u);
  half = select(half, 0x7e00u, size > 0x7f800000u);
  return half | ((bits >> 16u) & 0x8000u);
}

fn fourHalves(pairs: vec2<u32>) -> vec4<f16> {
  return vec4<f16>(bitcast<vec2<f16>>(pairs.x), bitcast<vec2<f16>>(pairs.y));
}

/// Four neighbouring inputs of a row, zeros past its end and below the last row.
fn fourInputs(row: u32, four: u32) -> vec4<f16> {
  if (row >= params.rows || 4u * four >= params.inputs) {
    return vec4<f16>();
  }
  if (X_F16) {
    return fourHalves(x[row * (params.inputs / 4u) + four]);
  }
  var values: vec4<u32>;
  if (FOURS) {
    let at = 2u * (row * (params.inputs / 4u) + four);
    values = vec4<u32>(x[at], x[at + 1u]);
  } else {
    for (var i = 0u; i < min(4u, params.inputs - 4u * four); i++) {
      let at = row * params.inputs + 4u * four + i;
      values[i] = x[at / 2u][at % 2u];
    }
  }
  let halves = bitcast<vec4f>(values);
  let low = halfBits(halves.x) | (halfBits(halves.y) << 16u);
  let high = halfBits(halves.z) | (halfBits(halves.w) << 16u);
  return fourHalves(vec2<u32>(low, high));
}

/// Four neighbouring weights of a row of them, zeros past the last row and the last column.
fn fourWeights(row: u32, group: u32) -> vec4<f16> {
  let groups = params.stride / 4u;
  if (row >= params.inputs || group >= groups) {
    return vec4<f16>();
  }
  return fourHalves(weight[row * groups + group]);
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
fn main(
  @builtin(workgroup_id) tile: vec3u,
  @builtin(local_invocation_index) lane: u32,
  @builtin(subgroup_id) subgroup: u32,
) {
  // Tiles of rows are dealt over y and z, because one dimension holds 65535 workgroups.
  let firstRow = (tile.y + tile.z * 65535u) * TILE_ROWS;
  let firstGroup = tile.x * TILE_GROUPS;
  let slice = subgroup / (SUBGROUP_ROWS * SUBGROUP_COLUMNS);
  let subgroupRow = subgroup / SUBGROUP_COLUMNS % SUBGROUP_ROWS;
  let subgroupColumn = subgroup % SUBGROUP_COLUMNS;

  var sums: array<array<subgroup_matrix_result<f32, N, M>, COLUMN_MATRICES>, ROW_MATRICES>;
  let steps = (params.inputs + 4u * TILE_FOURS - 1u) / (4u * TILE_FOURS);
  for (var step = 0u; step < steps; step++) {
    for (var i = lane; i < TILE_ROWS * TILE_FOURS; i += LANES) {
      let row = i / TILE_FOURS;
      let four = i % TILE_FOURS;
      tileX[row * X_STRIDE + four] = fourInputs(firstRow + row, step * TILE_FOURS + four);
    }
    for (var i = lane; i < 4u * TILE_FOURS * TILE_GROUPS; i += LANES) {
      let row = i / TILE_GROUPS;
      let group = i % TILE_GROUPS;
      tileWeights[row * WEIGHT_STRIDE + group] = fourWeights(step * 4u * TILE_FOURS + row, firstGroup + group);
    }
    workgroupBarrier();
    if (subgroup < SUBGROUPS) {
      for (var k = 0u; k < DEPTH; k += K) {
        let input = slice * DEPTH + k;
        var lefts: array<subgroup_matrix_left<f16, K, M>, ROW_MATRICES>;
        for (var i = 0u; i < ROW_MATRICES; i++) {
          let at = (subgroupRow * ROW_MATRICES + i) * M * X_STRIDE + input / 4u;
          lefts[i] = subgroupMatrixLoad<subgroup_matrix_left<f16, K, M>, row_major>(&tileX, at, X_STRIDE);
        }
        for (var j = 0u; j < COLUMN_MATRICES; j++) {
          let at = input * WEIGHT_STRIDE + (subgroupColumn * COLUMN_MATRICES + j) * (N / 4u);
          let right = subgroupMatrixLoad<subgroup_matrix_right<f16, N, K>, row_major>(&tileWeights, at, WEIGHT_STRIDE);
          for (var i = 0u; i < ROW_MATRICES; i++) {
            sums[i][j] = subgroupMatrixMultiplyAccumulate(lefts[i], right, sums[i][j]);
          }
        }
      }
    }
    workgroupBarrier();
  }

  for (var i = 0u; i < ROW_MATRICES; i++) {
    for (var firstMatrix = 0u; firstMatrix < COLUMN_MATRICES; firstMatrix += STORED_MATRICES) {
      if (subgroup < SUBGROUPS) {
        for (var j = 0u; j < STORED_MATRICES; j++) {
          let at = subgroup * M * STORED_COLUMNS + j * N;
          subgroupMatrixStore<row_major>(&stored, at, sums[i][firstMatrix + j], STORED_COLUMNS);
        }
      }
      workgroupBarrier();
      for (var e = lane; e < SUBGROUP_ROWS * SUBGROUP_COLUMNS * M * STORED_COLUMNS; e += LANES) {
        let r = e / (SUBGROUP_COLUMNS * STORED_COLUMNS);
        let c = e % (SUBGROUP_COLUMNS * STORED_COLUMNS);
        let place = r / M * SUBGROUP_COLUMNS + c / STORED_COLUMNS;
        let within = r % M * STORED_COLUMNS + c % STORED_COLUMNS;
        var sum = stored[place * M * STORED_COLUMNS + within];
        for (var s = 1u; s < SLICES; s++) {
          sum += stored[(s * SUBGROUP_ROWS * SUBGROUP_COLUMNS + place) * M * STORED_COLUMNS + within];
        }
        let row = firstRow + (r / M * ROW_MATRICES + i) * M + r % M;
        let inTile = (c / STORED_COLUMNS * COLUMN_MATRICES + firstMatrix) * N + c % STORED_COLUMNS;
        let column = 4u * firstGroup + inTile;
        if (row < params.rows && column < params.width) {
          let at = params.firstColumn + column;
          y[row * params.columns + at] = finish(sum, row, at);
        }
      }
      workgroupBarrier();
    }
  }
}
