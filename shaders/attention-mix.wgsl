// y[r, h * headWidth + c] = sum_t weights[r, h, t] * v[t, h, c] / totals[r, h]
//
// r runs over the query tokens of `items` items from firstItem on, t over the key tokens of the item.
// weights: (items, heads, queryTokens, keyTokens) and totals: (items, heads, queryTokens) come from attention-weights.
// v: (items * keyTokens, valueStride); head h of a row is the headWidth columns from valueColumn + h * headWidth on, so
// that v may be part of a fused product. y: (items * queryTokens, heads * headWidth). All f32, row-major.
//
// One workgroup takes QUERIES query tokens of one head and WORKGROUP * COLUMNS of its columns. An invocation keeps
// QUERIES times COLUMNS sums in registers and walks over the keys, so that each loaded v serves QUERIES sums; the
// weights are the same for all invocations. No workgroup memory, no barriers.
//
// With CAUSAL a query token sees the key tokens up to its own. With HAS_LENGTHS only the first lengths[item] keys of an item count, at least one. lengths: (all items) u32.
//
// Numerical choice: a sum is one chain of fma over the keys in f32, divided once at the end.

const WORKGROUP = 8u;
const QUERIES = 8u;
const COLUMNS = 8u;
const HAS_LENGTHS = false;
const CAUSAL = false;

struct Params {
  heads: u32,
  headWidth: u32,
  queryTokens: u32,
  keyTokens: u32,
  valueStride: u32,
  valueColumn: u32,
  firstItem: u32,
}

@group(0) @binding(0) var<storage, read> weights: array<f32>;
@group(0) @binding(1) var<storage, read> totals: array<f32>;
@group(0) @binding(2) var<storage, read> v: array<f32>;
@group(0) @binding(3) var<storage, read> lengths: array<u32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<uniform> params: Params;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) lane: u32) {
  let queryGroups = (params.queryTokens + QUERIES - 1u) / QUERIES;
  let firstQuery = id.x % queryGroups * QUERIES;
  let firstColumn = id.x / queryGroups * WORKGROUP * COLUMNS + lane;
  let head = id.y;
  let item = params.firstItem + id.z;
  let firstRow = (id.z * params.heads + head) * params.queryTokens;
  var keyCount = params.keyTokens;
  if (HAS_LENGTHS) {
    keyCount = min(lengths[item], params.keyTokens);
  }
  if (CAUSAL) {
    keyCount = min(keyCount, firstQuery + QUERIES);
  }

  var weightStart: array<u32, QUERIES>;
  for (var i = 0u; i < QUERIES; i++) {
    weightStart[i] = (firstRow + min(firstQuery + i, params.queryTokens - 1u)) * params.keyTokens;
  }
  // Columns past the head's end are computed like its last one, and are not stored.
  var column: array<u32, COLUMNS>;
  for (var j = 0u; j < COLUMNS; j++) {
    column[j] = head * params.headWidth + min(firstColumn + j * WORKGROUP, params.headWidth - 1u);
  }

  var sums: array<array<f32, COLUMNS>, QUERIES>;
  for (var t = 0u; t < keyCount; t++) {
    let start = (item * params.keyTokens + t) * params.valueStride + params.valueColumn;
    var values: array<f32, COLUMNS>;
    for (var j = 0u; j < COLUMNS; j++) {
      values[j] = v[start + column[j]];
    }
    for (var i = 0u; i < QUERIES; i++) {
      if (CAUSAL && t > firstQuery + i) {
        continue;
      }
      let weight = weights[weightStart[i] + t];
      for (var j = 0u; j < COLUMNS; j++) {
        sums[i][j] = fma(weight, values[j], sums[i][j]);
      }
    }
  }

  for (var i = 0u; i < QUERIES; i++) {
    let token = firstQuery + i;
    if (token < params.queryTokens) {
      let total = totals[firstRow + token];
      for (var j = 0u; j < COLUMNS; j++) {
        if (firstColumn + j * WORKGROUP < params.headWidth) {
          let row = item * params.queryTokens + token;
          y[row * params.heads * params.headWidth + column[j]] = sums[i][j] / total;
        }
      }
    }
  }
}
