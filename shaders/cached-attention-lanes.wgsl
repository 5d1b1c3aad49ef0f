// attended[r, h, :] = sum_p softmax_p(score_rhp) * value[place(p), h, :]
// with score_rhp = scale * query[r, h, :] . key[place(p), h, :]
// over the positions p = 0 .. position[r], so a row sees itself and what came before it; with `hasContexts` at least over
// p < contexts[sequence[r]], so that the rows of a context see all of it.
//
// queries, attended: (rows, heads, headDim) f32. cursors: (rows) of (token, position, slot, sequence).
// table: (sequences, positions): place(p) = table[sequence[r], p] is the cache row that holds position p.
// keyCache, valueCache: (slots, stride): f32 words, or with `half` packed f16 pairs, low half first; stride in elements.
// With `fours` every head starts at a word that is a multiple of four and has a multiple of four words; keys are then loaded
// in fours, otherwise each element by itself. A row without position becomes zeros.
// With `hasPositionBias` score_rhp gets positionBias[max(p - position[r], -reach) + reach, h] on top; positionBias:
// (2 * reach + 1, heads) f32, of which only the first reach + 1 rows can be asked for here.
//
// For CPU drivers, see attention-lanes.wgsl: one workgroup of one subgroup per (head, row). It walks the positions in blocks
// of `tile`. For the scores an invocation takes a position and its whole key, and gets the query from the invocations that
// hold it; for the sums an invocation takes a part of the head, and gets positions' weights from those that have them.
//
// Numerical choice: a score is four chains of fma, sums are chains of fma over ascending positions, shrunk at every block to
// the largest score so far. Blocks start at position 0 for every row: the order of every sum is a function of the row's
// position alone, and so are its bits.

enable subgroups;

const lanes = 8u;
const headDim = 8u;
const tile = 64u;
const half = false;
const fours = true;
const hasPositionBias = false;
const hasContexts = false;
/// Less than every score.
const lowest = -3.4028234e38f;
/// Elements of a word of values, as the invocations take them; a head of an odd number of halves may start within a word.
const pair = select(1u, 2u, half && headDim % 2u == 0u);
/// Elements of four words of keys.
const elements = select(4u, 8u, half);
/// By how many of an invocation's shares a head is held, of elements and of words.
const parts = (headDim + lanes - 1u) / lanes;
const words = headDim / pair;
const owned = (words + lanes - 1u) / lanes;
/// Positions of an invocation in a block.
const turns = tile / lanes;

struct Params {
  heads: u32,
  positions: u32,
  stride: u32,
  scale: f32,
  reach: u32,
  groups: u32,
}

@group(0) @binding(0) var<storage, read> queries: array<f32>;
@group(0) @binding(1) var<storage, read> keyCache: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> valueCache: array<u32>;
@group(0) @binding(3) var<storage, read> table: array<u32>;
@group(0) @binding(4) var<storage, read> cursors: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read> positionBias: array<f32>;
@group(0) @binding(6) var<storage, read> contexts: array<u32>;
@group(0) @binding(7) var<storage, read_write> attended: array<f32>;
@group(0) @binding(8) var<uniform> params: Params;

/// Elements 2 * i and 2 * i + 1 of four words of halves, or elements 2 * i and 2 * i + 1 of four f32.
fn twoOf(four: vec4<u32>, i: u32) -> vec2f {
  if (half) {
    return unpack2x16float(four[i]);
  }
  return bitcast<vec2f>(vec2<u32>(four[2u * i], four[2u * i + 1u]));
}

fn keyAt(index: u32) -> f32 {
  if (half) {
    let word = index >> 1u;
    return unpack2x16float(keyCache[word >> 2u][word & 3u])[index & 1u];
  }
  return bitcast<f32>(keyCache[index >> 2u][index & 3u]);
}

/// Elements of one share of a head whose first element is `base`; past its end the last one again.
fn valuesAt(base: u32, share: u32) -> vec2f {
  let index = base + pair * min(share, words - 1u);
  if (pair == 2u) {
    return unpack2x16float(valueCache[index >> 1u]);
  }
  if (half) {
    return vec2f(unpack2x16float(valueCache[index >> 1u])[index & 1u], 0.0);
  }
  return vec2f(bitcast<f32>(valueCache[index]), 0.0);
}

@compute @workgroup_size(lanes)
fn cachedAttention(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let head = group.x;
  let row = group.y;
  let inRow = head * headDim;
  let place = row * params.heads * headDim + inRow;
  // `none` + 1 wraps to zero visible positions.
  var visible = cursors[row].y + 1u;
  let sequence = cursors[row].w;
  if (hasContexts && visible > 0u) {
    visible = max(visible, contexts[sequence]);
  }

  var query: array<f32, parts>;
  for (var part = 0u; part < parts; part++) {
    query[part] = queries[place + min(part * lanes + lane, headDim - 1u)] * params.scale;
  }

  var sums: array<vec2f, owned>;
  var total = 0.0;
  var highest = lowest;
  for (var start = 0u; start < visible; start += tile) {
    let count = min(tile, visible - start);
    let rounds = (count + lanes - 1u) / lanes;
    var bases: array<u32, turns>;
    var scores: array<f32, turns>;
    var blockHighest = highest;
    for (var turn = 0u; turn < rounds; turn++) {
      let position = start + turn * lanes + lane;
      let base = table[sequence * params.positions + min(position, visible - 1u)] * params.stride + inRow;
      var dots = vec4f();
      if (fours) {
        let first = base / elements;
        for (var w = 0u; w < params.groups; w++) {
          let key = keyCache[first + w];
          for (var i = 0u; i < elements / 2u; i++) {
            let two = twoOf(key, i);
            let at = w * elements % lanes + 2u * i % lanes;
            let held = query[w * elements / lanes + 2u * i / lanes];
            let chain = 2u * i % 4u;
            dots[chain] = fma(subgroupShuffle(held, at), two.x, dots[chain]);
            dots[chain + 1u] = fma(subgroupShuffle(held, at + 1u), two.y, dots[chain + 1u]);
          }
        }
      } else {
        for (var d = 0u; d < params.groups; d++) {
          dots.x = fma(subgroupShuffle(query[d / lanes], d % lanes), keyAt(base + d), dots.x);
        }
      }
      var score = (dots.x + dots.y) + (dots.z + dots.w);
      if (hasPositionBias) {
        // How far the key lies before the query, at most `reach`.
        let distance = min(visible - 1u - min(position, visible - 1u), params.reach);
        score += positionBias[(params.reach - distance) * params.heads + head];
      }
      bases[turn] = base;
      scores[turn] = select(lowest, score, position < visible);
      blockHighest = max(blockHighest, scores[turn]);
    }
    blockHighest = subgroupMax(blockHighest);
    let shrink = exp(highest - blockHighest);
    highest = blockHighest;
    total *= shrink;
    for (var part = 0u; part < owned; part++) {
      sums[part] *= shrink;
    }
    for (var turn = 0u; turn < rounds; turn++) {
      let weight = select(0.0, exp(scores[turn] - highest), scores[turn] > lowest);
      total += weight;
      let held = min(lanes, count - turn * lanes);
      for (var other = 0u; other < held; other++) {
        let base = subgroupShuffle(bases[turn], other);
        let factor = subgroupShuffle(weight, other);
        for (var part = 0u; part < owned; part++) {
          sums[part] = fma(vec2f(factor), valuesAt(base, part * lanes + lane), sums[part]);
        }
      }
    }
  }

  let whole = subgroupAdd(total);
  for (var part = 0u; part < owned; part++) {
    let share = part * lanes + lane;
    if (share < words) {
      let mixed = select(vec2f(), sums[part] / whole, visible > 0u);
      attended[place + pair * share] = mixed.x;
      if (pair == 2u) {
        attended[place + pair * share + 1u] = mixed.y;
      }
    }
  }
}
