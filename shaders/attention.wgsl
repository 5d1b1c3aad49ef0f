// y[r, h] = sum_t softmax_t(scale * q[r, h] . k[t, h]) * v[t, h]      for every query row r of an item and head h
//
// q: (batch * queryTokens, queryStride)   k: (batch * keyTokens, keyStride)   v: (batch * keyTokens, valueStride)
// Head h of a row is the HEAD_WIDTH columns from queryColumn (keyColumn, valueColumn) + h * HEAD_WIDTH on, so that q, k
// and v may be parts of one fused product. y: (batch * queryTokens, heads * HEAD_WIDTH). All f32, row-major.
//
// One invocation keeps the sums of QUERIES query rows of one head in registers and walks over the keys, KEYS at a
// time. All invocations of a workgroup read the same k and v at the same time. No workgroup memory, no barriers.
//
// Numerical choice: online softmax in f32. The largest score so far is kept and the sums are rescaled when it grows, so
// that no exponential overflows, and no score is stored.

const HEAD_WIDTH = 64u;
const ALIGNED = true; // strides, columns and HEAD_WIDTH are multiples of 4
const WORKGROUP = 8u;
const QUERIES = 2u;
const KEYS = 4u;

const FOURS = (HEAD_WIDTH + 3u) / 4u;
/// Less than every score.
const LOWEST = -3.4028234e38f;

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
}

@group(0) @binding(0) var<storage, read> q: array<vec4f>;
@group(0) @binding(1) var<storage, read> k: array<vec4f>;
@group(0) @binding(2) var<storage, read> v: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

/// Four elements from element `at` on, which lies `at % 4` into `low`; `high` follows `low`.
fn across(low: vec4f, high: vec4f, at: u32) -> vec4f {
  switch (at % 4u) {
    case 1u: { return vec4f(low.yzw, high.x); }
    case 2u: { return vec4f(low.zw, high.xy); }
    case 3u: { return vec4f(low.w, high.xyz); }
    default: { return low; }
  }
}

fn fourOfQ(at: u32) -> vec4f {
  if (ALIGNED) {
    return q[at / 4u];
  }
  return across(q[at / 4u], q[at / 4u + 1u], at);
}

fn fourOfK(at: u32) -> vec4f {
  if (ALIGNED) {
    return k[at / 4u];
  }
  return across(k[at / 4u], k[at / 4u + 1u], at);
}

fn fourOfV(at: u32) -> vec4f {
  if (ALIGNED) {
    return v[at / 4u];
  }
  return across(v[at / 4u], v[at / 4u + 1u], at);
}

/// Of the last four of a head, what is past the head's end is another head's or nothing at all.
fn withinHead(value: vec4f, four: u32) -> vec4f {
  if (HEAD_WIDTH % 4u == 0u) {
    return value;
  }
  return select(vec4f(), value, vec4u(0u, 1u, 2u, 3u) + four * 4u < vec4u(HEAD_WIDTH));
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) lane: u32) {
  let firstQuery = id.x * WORKGROUP * QUERIES + lane;
  let head = id.y;
  let firstKeyRow = id.z * params.keyTokens;

  var queryStart: array<u32, QUERIES>;
  var largest: array<f32, QUERIES>;
  var weightSum: array<f32, QUERIES>;
  var sums: array<array<vec4f, QUERIES>, FOURS>;
  for (var i = 0u; i < QUERIES; i++) {
    let token = min(firstQuery + i * WORKGROUP, params.queryTokens - 1u);
    queryStart[i] = (id.z * params.queryTokens + token) * params.queryStride + params.queryColumn + head * HEAD_WIDTH;
    largest[i] = LOWEST;
  }

  for (var first = 0u; first < params.keyTokens; first += KEYS) {
    var keyStart: array<u32, KEYS>;
    var valueStart: array<u32, KEYS>;
    for (var j = 0u; j < KEYS; j++) {
      let row = firstKeyRow + min(first + j, params.keyTokens - 1u);
      keyStart[j] = row * params.keyStride + params.keyColumn + head * HEAD_WIDTH;
      valueStart[j] = row * params.valueStride + params.valueColumn + head * HEAD_WIDTH;
    }

    // Zeroed by hand: on lavapipe 25.0 a variable declared in this loop starts with what the last turn left in it.
    var products: array<array<vec4f, KEYS>, QUERIES>;
    for (var i = 0u; i < QUERIES; i++) {
      for (var j = 0u; j < KEYS; j++) {
        products[i][j] = vec4f();
      }
    }
    for (var d = 0u; d < FOURS; d++) {
      var keys: array<vec4f, KEYS>;
      for (var j = 0u; j < KEYS; j++) {
        keys[j] = withinHead(fourOfK(keyStart[j] + d * 4u), d);
      }
      for (var i = 0u; i < QUERIES; i++) {
        let query = withinHead(fourOfQ(queryStart[i] + d * 4u), d);
        for (var j = 0u; j < KEYS; j++) {
          products[i][j] = fma(query, keys[j], products[i][j]);
        }
      }
    }

    var weights: array<array<f32, KEYS>, QUERIES>;
    var shrink: array<f32, QUERIES>;
    for (var i = 0u; i < QUERIES; i++) {
      var newLargest = largest[i];
      for (var j = 0u; j < KEYS; j++) {
        let pairs = products[i][j].xy + products[i][j].zw;
        weights[i][j] = select(LOWEST, (pairs.x + pairs.y) * params.scale, first + j < params.keyTokens);
        newLargest = max(newLargest, weights[i][j]);
      }
      shrink[i] = exp(largest[i] - newLargest);
      largest[i] = newLargest;
      weightSum[i] *= shrink[i];
      for (var j = 0u; j < KEYS; j++) {
        weights[i][j] = exp(weights[i][j] - newLargest);
        weightSum[i] += weights[i][j];
      }
    }

    for (var d = 0u; d < FOURS; d++) {
      for (var i = 0u; i < QUERIES; i++) {
        sums[d][i] *= shrink[i];
      }
      for (var j = 0u; j < KEYS; j++) {
        let value = fourOfV(valueStart[j] + d * 4u);
        for (var i = 0u; i < QUERIES; i++) {
          sums[d][i] = fma(vec4f(weights[i][j]), value, sums[d][i]);
        }
      }
    }
  }

  for (var i = 0u; i < QUERIES; i++) {
    let token = firstQuery + i * WORKGROUP;
    if (token < params.queryTokens) {
      let start = ((id.z * params.queryTokens + token) * params.heads + head) * HEAD_WIDTH;
      for (var d = 0u; d < FOURS; d++) {
        for (var part = 0u; part < 4u; part++) {
          if (d * 4u + part < HEAD_WIDTH) {
            y[start + d * 4u + part] = sums[d][i][part] / weightSum[i];
          }
        }
      }
    }
  }
}
