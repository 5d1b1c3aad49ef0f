// y[r, h * headWidth + c] = sum_t softmax_t(score_rt) * v[t, h, c]   with score_rt = scale * q_r . k_t
//
// r runs over (item, head, query token), t over the key tokens of the item.
// q: (items * queryTokens, queryStride)   k: (items * keyTokens, keyStride)   v: (items * keyTokens, valueStride); head h of
// a row is the headWidth columns from queryColumn (keyColumn, valueColumn) + h * headWidth on, so that they may be parts of
// one fused product. y: (items * queryTokens, heads * headWidth). All f32, row-major.
//
// For GPUs. A workgroup takes 8 * ROWS query tokens of one head and 8 * SHARE of its columns, and walks over the keys in
// tiles of 8 * ROWS. Its 8 x 8 invocations share what they load in workgroup memory: invocation (i, j) has the scores of
// queries i * ROWS + 0 .. ROWS - 1 with keys j, j + 8, .., and of these queries' sums the columns j, j + 8, ... Weights never
// leave the workgroup; when a tile has a score above the largest so far, the sums shrink.
// 13.6 KiB of workgroup memory with ROWS of 4 and SHARE of 16, its largest.
//
// With CAUSAL a query token sees the key tokens up to its own.
// With HAS_LENGTHS only the first lengths[item] keys of an item count, at least one. lengths: (items) u32.
// With HAS_POSITION_BIAS score_rt gets positionBias[clamp(t - query token, -reach, reach) + reach, h] on top.
// positionBias: (2 * reach + 1, heads) f32.
//
// Numerical choice: a score is one chain of fma over the head's columns in f32, sums are chains of fma over ascending keys,
// shrunk at every tile, and totals are added up per invocation first. All of it is a function of the query and its keys.

const ROWS = 4u;
const SHARE = 11u;
const HAS_LENGTHS = false;
const HAS_POSITION_BIAS = false;
const CAUSAL = false;

/// Less than every score.
const LOWEST = -3.4028234e38f;
/// Queries of a workgroup, and keys of a tile.
const TILE = 8u * ROWS;
/// Columns of queries and keys that are in workgroup memory at a time. Rows there are one longer, so that neighbouring
/// invocations, which read neighbouring rows, meet different banks.
const DEPTH = 16u;
const PITCH = DEPTH + 1u;
/// Keys whose values are there at a time.
const VALUES = 8u;

struct Params {
  heads: u32,
  headWidth: u32,
  queryTokens: u32,
  keyTokens: u32,
  queryStride: u32,
  queryColumn: u32,
  keyStride: u32,
  keyColumn: u32,
  valueStride: u32,
  valueColumn: u32,
  scale: f32,
  reach: u32,
}

@group(0) @binding(0) var<storage, read> q: array<f32>;
@group(0) @binding(1) var<storage, read> k: array<f32>;
@group(0) @binding(2) var<storage, read> v: array<f32>;
@group(0) @binding(3) var<storage, read> lengths: array<u32>;
@group(0) @binding(4) var<storage, read> positionBias: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
@group(0) @binding(6) var<uniform> params: Params;

var<workgroup> queryTile: array<f32, TILE * PITCH>;
var<workgroup> keyTile: array<f32, TILE * PITCH>;
var<workgroup> weightTile: array<f32, TILE * (TILE + 1u)>;
var<workgroup> valueTile: array<f32, VALUES * 8u * SHARE>;
/// One per query and column of invocations.
var<workgroup> parts: array<f32, TILE * 8u>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = lane / 8u;
  let j = lane % 8u;
  let queryTiles = (params.queryTokens + TILE - 1u) / TILE;
  let firstQuery = id.x % queryTiles * TILE;
  let firstColumn = id.x / queryTiles * 8u * SHARE;
  let head = id.y;
  let item = id.z;
  var keyCount = params.keyTokens;
  if (HAS_LENGTHS) {
    keyCount = min(lengths[item], params.keyTokens);
  }
  if (CAUSAL) {
    keyCount = min(keyCount, firstQuery + TILE);
  }
  let inHead = head * params.headWidth;

  var sums: array<array<f32, SHARE>, ROWS>;
  var largest: array<f32, ROWS>;
  var totals: array<f32, ROWS>;
  for (var r = 0u; r < ROWS; r++) {
    largest[r] = LOWEST;
  }

  for (var first = 0u; first < keyCount; first += TILE) {
    let count = min(TILE, keyCount - first);
    // Zeroed by hand: with Dawn (webgpu 0.6.2) a variable declared in a loop starts with what the last turn left in it.
    var scores: array<array<f32, ROWS>, ROWS>;
    for (var r = 0u; r < ROWS; r++) {
      for (var s = 0u; s < ROWS; s++) {
        scores[r][s] = 0.0;
      }
    }
    for (var depth = 0u; depth < params.headWidth; depth += DEPTH) {
      workgroupBarrier();
      // Tokens past the last are like it, and so are columns past the head's end, which enter no score.
      for (var n = lane; n < TILE * DEPTH; n += 64u) {
        let row = n / DEPTH;
        let d = inHead + min(depth + n % DEPTH, params.headWidth - 1u);
        let queryRow = item * params.queryTokens + min(firstQuery + row, params.queryTokens - 1u);
        let keyRow = item * params.keyTokens + min(first + row, keyCount - 1u);
        queryTile[row * PITCH + n % DEPTH] = q[queryRow * params.queryStride + params.queryColumn + d];
        keyTile[row * PITCH + n % DEPTH] = k[keyRow * params.keyStride + params.keyColumn + d];
      }
      workgroupBarrier();
      let columns = min(DEPTH, params.headWidth - depth);
      for (var d = 0u; d < columns; d++) {
        var keys: array<f32, ROWS>;
        for (var s = 0u; s < ROWS; s++) {
          keys[s] = keyTile[(j + 8u * s) * PITCH + d];
        }
        for (var r = 0u; r < ROWS; r++) {
          let query = queryTile[(i * ROWS + r) * PITCH + d];
          for (var s = 0u; s < ROWS; s++) {
            scores[r][s] = fma(query, keys[s], scores[r][s]);
          }
        }
      }
    }

    for (var r = 0u; r < ROWS; r++) {
      let query = firstQuery + i * ROWS + r;
      var own = LOWEST;
      for (var s = 0u; s < ROWS; s++) {
        let key = first + j + 8u * s;
        var score = scores[r][s] * params.scale;
        if (HAS_POSITION_BIAS) {
          let reach = i32(params.reach);
          let distance = clamp(i32(key) - i32(query), -reach, reach);
          score += positionBias[u32(distance + reach) * params.heads + head];
        }
        scores[r][s] = select(LOWEST, score, key < keyCount && (!CAUSAL || key <= query));
        own = max(own, scores[r][s]);
      }
      parts[(i * ROWS + r) * 8u + j] = own;
    }
    workgroupBarrier();
    for (var r = 0u; r < ROWS; r++) {
      var tileLargest = largest[r];
      // With fewer keys than that the other invocations have none.
      for (var other = 0u; other < min(8u, count); other++) {
        tileLargest = max(tileLargest, parts[(i * ROWS + r) * 8u + other]);
      }
      let shrink = exp(largest[r] - tileLargest);
      largest[r] = tileLargest;
      totals[r] *= shrink;
      for (var c = 0u; c < SHARE; c++) {
        sums[r][c] *= shrink;
      }
      for (var s = 0u; s < ROWS; s++) {
        let weight = select(0.0, exp(scores[r][s] - tileLargest), scores[r][s] > LOWEST);
        totals[r] += weight;
        weightTile[(i * ROWS + r) * (TILE + 1u) + j + 8u * s] = weight;
      }
    }

    for (var start = 0u; start < count; start += VALUES) {
      workgroupBarrier();
      for (var n = lane; n < VALUES * 8u * SHARE; n += 64u) {
        let valueRow = item * params.keyTokens + min(first + start + n / (8u * SHARE), keyCount - 1u);
        let column = inHead + min(firstColumn + n % (8u * SHARE), params.headWidth - 1u);
        valueTile[n] = v[valueRow * params.valueStride + params.valueColumn + column];
      }
      workgroupBarrier();
      let values = min(VALUES, count - start);
      for (var t = 0u; t < values; t++) {
        var value: array<f32, SHARE>;
        for (var c = 0u; c < SHARE; c++) {
          value[c] = valueTile[t * 8u * SHARE + j + 8u * c];
        }
        for (var r = 0u; r < ROWS; r++) {
          let weight = weightTile[(i * ROWS + r) * (TILE + 1u) + start + t];
          // What is not seen may be anything, NaN too.
          let unseen = CAUSAL && first + start + t > firstQuery + i * ROWS + r;
          for (var c = 0u; c < SHARE; c++) {
            sums[r][c] = select(fma(weight, value[c], sums[r][c]), sums[r][c], unseen);
          }
        }
      }
    }
  }

  // No invocation reads parts of the last tile any more: values came after them.
  for (var r = 0u; r < ROWS; r++) {
    parts[(i * ROWS + r) * 8u + j] = totals[r];
  }
  workgroupBarrier();
  for (var r = 0u; r < ROWS; r++) {
    let query = firstQuery + i * ROWS + r;
    var total = 0.0;
    for (var other = 0u; other < min(8u, keyCount); other++) {
      total += parts[(i * ROWS + r) * 8u + other];
    }
    for (var c = 0u; c < SHARE; c++) {
      let column = firstColumn + j + 8u * c;
      if (query < params.queryTokens && column < params.headWidth) {
        y[(item * params.queryTokens + query) * params.heads * params.headWidth + inHead + column] = sums[r][c] / total;
      }
    }
  }
}
