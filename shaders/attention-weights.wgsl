// weights[r, t] = exp(score_rt - largest_r)   totals[r] = sum_t weights[r, t]   with score_rt = scale * q_r . k_t
//
// r runs over (item, head, query token) of `items` items from firstItem on, t over the key tokens of the item, and
// largest_r is the largest score_rt. What attention-mix makes of it is softmax(score) * v.
// q: (items * queryTokens, queryStride)   k: (items * keyTokens, keyStride); head h of a row is the headWidth columns
// from queryColumn (keyColumn) + h * headWidth on, so that q and k may be parts of one fused product.
// weights: (items, heads, queryTokens, keyTokens)   totals: (items, heads, queryTokens). All f32, row-major.
//
// One workgroup takes QUERIES query tokens of one head and walks over the keys. An invocation keeps the scores of these
// queries with KEYS keys in registers, so that each loaded k serves QUERIES sums; q is the same for all invocations.
// Workgroup memory only joins the invocations' largest scores and their totals at the end.
//
// With CAUSAL a query token sees the key tokens up to its own, and the weights of later ones are not written.
// With HAS_LENGTHS only the first lengths[item] keys of an item count, at least one; the weights of the others are not
// written. lengths: (all items) u32.
// With HAS_POSITION_BIAS score_rt gets positionBias[clamp(t - query token, -reach, reach) + reach, h] on top.
// positionBias: (2 * reach + 1, heads) f32.
//
// Numerical choice: a score is one chain of fma over the head's columns in f32, whatever stands beside it.

const WORKGROUP = 8u;
const QUERIES = 8u;
const KEYS = 4u;
const HAS_LENGTHS = false;
const HAS_POSITION_BIAS = false;
const CAUSAL = false;

/// Less than every score.
const LOWEST = -3.4028234e38f;

struct Params {
  heads: u32,
  headWidth: u32,
  queryTokens: u32,
  keyTokens: u32,
  queryStride: u32,
  queryColumn: u32,
  keyStride: u32,
  keyColumn: u32,
  firstItem: u32,
  scale: f32,
  reach: u32,
}

@group(0) @binding(0) var<storage, read> q: array<f32>;
@group(0) @binding(1) var<storage, read> k: array<f32>;
@group(0) @binding(2) var<storage, read> lengths: array<u32>;
@group(0) @binding(3) var<storage, read> positionBias: array<f32>;
@group(0) @binding(4) var<storage, read_write> weights: array<f32>;
@group(0) @binding(5) var<storage, read_write> totals: array<f32>;
@group(0) @binding(6) var<uniform> params: Params;

var<workgroup> parts: array<array<f32, QUERIES>, WORKGROUP>;

fn sees(query: u32, key: u32) -> bool {
  return !CAUSAL || key <= query;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) lane: u32) {
  let firstQuery = id.x * QUERIES;
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

  var queryStart: array<u32, QUERIES>;
  var largest: array<f32, QUERIES>;
  for (var i = 0u; i < QUERIES; i++) {
    let token = min(firstQuery + i, params.queryTokens - 1u);
    let row = item * params.queryTokens + token;
    queryStart[i] = row * params.queryStride + params.queryColumn + head * params.headWidth;
    largest[i] = LOWEST;
  }

  for (var firstKey = lane; firstKey < keyCount; firstKey += WORKGROUP * KEYS) {
    var keyStart: array<u32, KEYS>;
    for (var j = 0u; j < KEYS; j++) {
      let row = item * params.keyTokens + min(firstKey + j * WORKGROUP, params.keyTokens - 1u);
      keyStart[j] = row * params.keyStride + params.keyColumn + head * params.headWidth;
    }
    // Zeroed by hand: with Dawn (webgpu 0.6.2) a variable declared in a loop starts with what the last turn left in it.
    var scores: array<array<f32, KEYS>, QUERIES>;
    for (var i = 0u; i < QUERIES; i++) {
      for (var j = 0u; j < KEYS; j++) {
        scores[i][j] = 0.0;
      }
    }
    for (var d = 0u; d < params.headWidth; d++) {
      var keys: array<f32, KEYS>;
      for (var j = 0u; j < KEYS; j++) {
        keys[j] = k[keyStart[j] + d];
      }
      for (var i = 0u; i < QUERIES; i++) {
        let query = q[queryStart[i] + d];
        for (var j = 0u; j < KEYS; j++) {
          scores[i][j] = fma(query, keys[j], scores[i][j]);
        }
      }
    }
    for (var i = 0u; i < QUERIES; i++) {
      for (var j = 0u; j < KEYS; j++) {
        let key = firstKey + j * WORKGROUP;
        if (firstQuery + i < params.queryTokens && key < keyCount && sees(firstQuery + i, key)) {
          var score = scores[i][j] * params.scale;
          if (HAS_POSITION_BIAS) {
            let reach = i32(params.reach);
            let distance = clamp(i32(key) - i32(firstQuery + i), -reach, reach);
            score += positionBias[u32(distance + reach) * params.heads + head];
          }
          weights[(firstRow + firstQuery + i) * params.keyTokens + key] = score;
          largest[i] = max(largest[i], score);
        }
      }
    }
  }

  parts[lane] = largest;
  workgroupBarrier();
  for (var other = 0u; other < WORKGROUP; other++) {
    for (var i = 0u; i < QUERIES; i++) {
      largest[i] = max(largest[i], parts[other][i]);
    }
  }
  workgroupBarrier();

  // Every invocation goes over the scores that it has stored itself.
  var sums: array<f32, QUERIES>;
  for (var key = lane; key < keyCount; key += WORKGROUP) {
    for (var i = 0u; i < QUERIES; i++) {
      if (firstQuery + i < params.queryTokens && sees(firstQuery + i, key)) {
        let at = (firstRow + firstQuery + i) * params.keyTokens + key;
        let weight = exp(weights[at] - largest[i]);
        weights[at] = weight;
        sums[i] += weight;
      }
    }
  }
  parts[lane] = sums;
  workgroupBarrier();

  for (var i = lane; i < QUERIES; i += WORKGROUP) {
    if (firstQuery + i < params.queryTokens) {
      var total = 0.0;
      for (var other = 0u; other < WORKGROUP; other++) {
        total += parts[other][i];
      }
      totals[firstRow + firstQuery + i] = total;
    }
  }
}
