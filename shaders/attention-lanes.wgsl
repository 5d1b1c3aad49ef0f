// y[r, h * headWidth + c] = sum_t softmax_t(score_rt) * v[t, h, c]   with score_rt = scale * q_r . k_t
//
// r runs over (item, head, query token), t over the key tokens of the item.
// q: (items * queryTokens, queryStride)   k: (items * keyTokens, keyStride)   v: (items * keyTokens, valueStride); head h of
// a row is the HEAD_WIDTH columns from queryColumn (keyColumn, valueColumn) + h * HEAD_WIDTH on, so that they may be parts of
// one fused product. y: (items * queryTokens, heads * HEAD_WIDTH). All f32, row-major.
//
// For CPU drivers, which run a subgroup as one SIMD group: there a load costs as much as some fifteen fma, whether the
// invocations load the same value or neighbours, while a value that another invocation holds costs about one. So a
// workgroup is one subgroup of LANES invocations, each of which keeps QUERIES queries of one head and their sums in
// registers. The invocations load a key together, each a part of it, and pass the parts around; so they do with values.
// No workgroup memory, no barriers, and no weights in memory.
// Keys come in blocks of KEYS: first their scores, then the sums shrink to the largest score so far, then their values.
//
// With ALIGNED every head starts at a multiple of four and is a multiple of four wide, and is loaded in fours; otherwise
// each column by itself.
//
// With CAUSAL a query token sees the key tokens up to its own.
// With HAS_LENGTHS only the first lengths[item] keys of an item count, at least one. lengths: (items) u32.
// With HAS_POSITION_BIAS score_rt gets positionBias[clamp(t - query token, -reach, reach) + reach, h] on top.
// positionBias: (2 * reach + 1, heads) f32.
//
// Numerical choice: a score is four chains of fma, one for each column modulo four; sums are chains of fma over ascending
// keys, shrunk at every KEYS. All of it is a function of the query and its keys alone.

enable subgroups;

const LANES = 8u;
const QUERIES = 2u;
const KEYS = 32u;
const HEAD_WIDTH = 88u;
const ALIGNED = true;
const HAS_LENGTHS = false;
const HAS_POSITION_BIAS = false;
const CAUSAL = false;

/// Less than every score.
const LOWEST = -3.4028234e38f;
/// Fours of a head, and loads by which LANES invocations have them all.
const FOURS = (HEAD_WIDTH + 3u) / 4u;
const PARTS = (FOURS + LANES - 1u) / LANES;

struct Params {
  heads: u32,
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
  fours: u32,
}

@group(0) @binding(0) var<storage, read> q: array<vec4f>;
@group(0) @binding(1) var<storage, read> k: array<vec4f>;
@group(0) @binding(2) var<storage, read> v: array<vec4f>;
@group(0) @binding(3) var<storage, read> lengths: array<u32>;
@group(0) @binding(4) var<storage, read> positionBias: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
@group(0) @binding(6) var<uniform> params: Params;

/// Columns 4 * four to 4 * four + 3 of the head that starts at element `start`; past its end zeros.
fn fourColumns(rows: ptr<storage, array<vec4f>, read>, start: u32, four: u32) -> vec4f {
  if (ALIGNED) {
    return rows[start / 4u + four];
  }
  var columns = vec4f();
  for (var i = 0u; i < 4u; i++) {
    let at = start + 4u * four + i;
    if (4u * four + i < HEAD_WIDTH) {
      columns[i] = rows[at / 4u][at % 4u];
    }
  }
  return columns;
}

/// What invocation `lane` holds.
fn heldBy(part: vec4f, lane: u32) -> vec4f {
  return vec4f(
    subgroupShuffle(part.x, lane),
    subgroupShuffle(part.y, lane),
    subgroupShuffle(part.z, lane),
    subgroupShuffle(part.w, lane),
  );
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) lane: u32) {
  let head = id.y;
  let item = id.z;
  let firstQuery = id.x * LANES * QUERIES;
  var keyCount = params.keyTokens;
  if (HAS_LENGTHS) {
    keyCount = min(lengths[item], params.keyTokens);
  }
  if (CAUSAL) {
    keyCount = min(keyCount, firstQuery + LANES * QUERIES);
  }
  let firstKeyStart = item * params.keyTokens * params.keyStride + params.keyColumn + head * HEAD_WIDTH;
  let firstValueStart = item * params.keyTokens * params.valueStride + params.valueColumn + head * HEAD_WIDTH;

  // Queries past the last one are computed like it, and are not stored.
  var query: array<array<vec4f, FOURS>, QUERIES>;
  var sums: array<array<vec4f, FOURS>, QUERIES>;
  var largest: array<f32, QUERIES>;
  var totals: array<f32, QUERIES>;
  for (var i = 0u; i < QUERIES; i++) {
    let token = min(firstQuery + i * LANES + lane, params.queryTokens - 1u);
    let start = (item * params.queryTokens + token) * params.queryStride + params.queryColumn + head * HEAD_WIDTH;
    // A loop that the driver does not unroll: loads and stores are most of what it takes time to compile.
    var loaded: array<vec4f, FOURS>;
    for (var d = 0u; d < params.fours; d++) {
      loaded[d] = params.scale * fourColumns(&q, start, d);
    }
    for (var d = 0u; d < FOURS; d++) {
      query[i][d] = loaded[d];
    }
    largest[i] = LOWEST;
  }

  for (var first = 0u; first < keyCount; first += KEYS) {
    let count = min(KEYS, keyCount - first);
    var scores: array<array<f32, QUERIES>, KEYS>;
    var blockLargest = largest;
    for (var t = 0u; t < count; t++) {
      let start = firstKeyStart + (first + t) * params.keyStride;
      var parts: array<vec4f, PARTS>;
      for (var p = 0u; p < PARTS; p++) {
        parts[p] = fourColumns(&k, start, min(p * LANES + lane, FOURS - 1u));
      }
      var dots: array<vec4f, QUERIES>;
      for (var i = 0u; i < QUERIES; i++) {
        dots[i] = vec4f();
      }
      for (var d = 0u; d < FOURS; d++) {
        let key = heldBy(parts[d / LANES], d % LANES);
        for (var i = 0u; i < QUERIES; i++) {
          dots[i] = fma(query[i][d], key, dots[i]);
        }
      }
      for (var i = 0u; i < QUERIES; i++) {
        let token = firstQuery + i * LANES + lane;
        var score = (dots[i].x + dots[i].y) + (dots[i].z + dots[i].w);
        if (HAS_POSITION_BIAS) {
          let reach = i32(params.reach);
          let distance = clamp(i32(first + t) - i32(token), -reach, reach);
          score += positionBias[u32(distance + reach) * params.heads + head];
        }
        scores[t][i] = score;
        blockLargest[i] = select(max(blockLargest[i], score), blockLargest[i], CAUSAL && first + t > token);
      }
    }
    for (var i = 0u; i < QUERIES; i++) {
      let shrink = exp(largest[i] - blockLargest[i]);
      totals[i] *= shrink;
      for (var c = 0u; c < FOURS; c++) {
        sums[i][c] *= shrink;
      }
    }
    largest = blockLargest;
    for (var t = 0u; t < count; t++) {
      let start = firstValueStart + (first + t) * params.valueStride;
      var parts: array<vec4f, PARTS>;
      for (var p = 0u; p < PARTS; p++) {
        parts[p] = fourColumns(&v, start, min(p * LANES + lane, FOURS - 1u));
      }
      var weights: array<f32, QUERIES>;
      for (var i = 0u; i < QUERIES; i++) {
        weights[i] = exp(scores[t][i] - largest[i]);
        totals[i] += select(weights[i], 0.0, CAUSAL && first + t > firstQuery + i * LANES + lane);
      }
      for (var c = 0u; c < FOURS; c++) {
        let value = heldBy(parts[c / LANES], c % LANES);
        for (var i = 0u; i < QUERIES; i++) {
          // What is not seen may be anything, NaN too.
          let unseen = CAUSAL && first + t > firstQuery + i * LANES + lane;
          sums[i][c] = select(fma(vec4f(weights[i]), value, sums[i][c]), sums[i][c], unseen);
        }
      }
    }
  }

  for (var i = 0u; i < QUERIES; i++) {
    let token = firstQuery + i * LANES + lane;
    let start = (item * params.queryTokens + token) * params.heads * HEAD_WIDTH + head * HEAD_WIDTH;
    var mixed: array<vec4f, FOURS>;
    for (var c = 0u; c < FOURS; c++) {
      mixed[c] = sums[i][c] / totals[i];
    }
    if (token < params.queryTokens) {
      for (var c = 0u; c < params.fours; c++) {
        let columns = mixed[c];
        for (var j = 0u; j < 4u; j++) {
          if (4u * c + j < HEAD_WIDTH) {
            y[start + 4u * c + j] = columns[j];
          }
        }
      }
    }
  }
}
