// weights[r, t] = exp(score_rt - largest_r)   with score_rt = scale * q_r . k_t and largest_r the largest of them
//
// Where a model looks, not divided by the sum over t. Attention itself never has its weights in memory.
// r runs over (item, head, query token), t over the key tokens of the item.
// q: (items * queryTokens, queryStride)   k: (items * keyTokens, keyStride); head h of a row is the headWidth columns
// from queryColumn (keyColumn) + h * headWidth on, so that q and k may be parts of one fused product.
// weights: (items, heads, queryTokens, keyTokens). All f32, row-major.
//
// One workgroup takes QUERIES query tokens of one head and walks over the keys. An invocation keeps the scores of these
// queries with KEYS keys in registers, so that each loaded k serves QUERIES sums; q is the same for all invocations.
// Workgroup memory only joins the invocations' largest scores at the end.
//
// Numerical choice: a score is one chain of fma over the head's columns in f32, whatever stands beside it.

const WORKGROUP = 8u;
const QUERIES = 8u;
const KEYS = 4u;

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
  scale: f32,
}

@group(0) @binding(0) var<storage, read> q: array<f32>;
@group(0) @binding(1) var<storage, read> k: array<f32>;
@group(0) @binding(2) var<storage, read_write> weights: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

var<workgroup> parts: array<array<f32, QUERIES>, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) lane: u32) {
  let firstQuery = id.x * QUERIES;
  let head = id.y;
  let item = id.z;
  let firstRow = (item * params.heads + head) * params.queryTokens;

  var queryStart: array<u32, QUERIES>;
  var largest: array<f32, QUERIES>;
  for (var i = 0u; i < QUERIES; i++) {
    let token = min(firstQuery + i, params.queryTokens - 1u);
    let row = item * params.queryTokens + token;
    queryStart[i] = row * params.queryStride + params.queryColumn + head * params.headWidth;
    largest[i] = LOWEST;
  }

  for (var firstKey = lane; firstKey < params.keyTokens; firstKey += WORKGROUP * KEYS) {
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
        if (firstQuery + i < params.queryTokens && key < params.keyTokens) {
          let score = scores[i][j] * params.scale;
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

  // Every invocation goes over the scores that it has stored itself.
  for (var key = lane; key < params.keyTokens; key += WORKGROUP) {
    for (var i = 0u; i < QUERIES; i++) {
      if (firstQuery + i < params.queryTokens) {
        let at = (firstRow + firstQuery + i) * params.keyTokens + key;
        weights[at] = exp(weights[at] - largest[i]);
      }
    }
  }
}
