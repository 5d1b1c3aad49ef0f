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
// For GPUs. One workgroup per (head, row, span of `span` positions), rows from firstRow on, so that a few rows over many
// positions fill a GPU. Where a row can see more than one span (`joined`), a workgroup leaves partial[row - firstRow, h, span]
// = (sums, total, highest), headDim + 2 f32, for cached-attention-join; spans that a row does not see are left as they are.
// A workgroup walks its span in tiles: each lane takes whole dot products, then each lane owns some of the head's words and
// adds the tile's values. The softmax is f32, with a running maximum. Spans and tiles start at position 0 for every row: the
// order of every sum is a function of the row's position alone.
const lanes = 64u;
const headDim = 8u;
const tile = 64u;
const span = 128u;
const joined = false;
const half = false;
const fours = true;
const hasPositionBias = false;
const hasContexts = false;
/// Less than every score.
const lowest = -3.4028234e38f;
/// Elements of a word of values, as the lanes take them; a head of an odd number of halves may start within a word.
const pair = select(1u, 2u, half && headDim % 2u == 0u);
/// Elements of four words of keys.
const elements = select(4u, 8u, half);
const words = headDim / pair;
const owned = (words + lanes - 1u) / lanes;

struct Params {
  heads: u32,
  positions: u32,
  stride: u32,
  scale: f32,
  reach: u32,
  firstRow: u32,
  spans: u32,
}

@group(0) @binding(0) var<storage, read> queries: array<f32>;
@group(0) @binding(1) var<storage, read> keyCache: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> valueCache: array<u32>;
@group(0) @binding(3) var<storage, read> table: array<u32>;
@group(0) @binding(4) var<storage, read> cursors: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read> positionBias: array<f32>;
@group(0) @binding(6) var<storage, read> contexts: array<u32>;
/// attended, or with `joined` partial.
@group(0) @binding(7) var<storage, read_write> result: array<f32>;
@group(0) @binding(8) var<uniform> params: Params;

var<workgroup> query: array<f32, headDim>;
var<workgroup> bases: array<u32, tile>;
var<workgroup> scores: array<f32, tile>;

/// Elements 2 * i and 2 * i + 1 of four words.
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
  let row = params.firstRow + group.y;
  let inRow = head * headDim;
  let place = row * params.heads * headDim + inRow;
  // `none` + 1 wraps to zero visible positions.
  var visible = cursors[row].y + 1u;
  let sequence = cursors[row].w;
  if (hasContexts && visible > 0u) {
    visible = max(visible, contexts[sequence]);
  }
  let first = group.z * span;
  if (joined && first >= visible) {
    return;
  }
  let end = min(visible, first + span);

  for (var d = lane; d < headDim; d += lanes) {
    query[d] = queries[place + d] * params.scale;
  }
  workgroupBarrier();

  var sums: array<vec2f, owned>;
  var total = 0.0;
  var highest = lowest;
  for (var start = first; start < end; start += tile) {
    let count = min(tile, end - start);
    for (var i = lane; i < count; i += lanes) {
      let base = table[sequence * params.positions + start + i] * params.stride + inRow;
      var score = 0.0;
      if (fours) {
        for (var w = 0u; w < headDim / elements; w++) {
          let key = keyCache[base / elements + w];
          for (var j = 0u; j < elements / 2u; j++) {
            let two = twoOf(key, j);
            let d = w * elements + 2u * j;
            score = fma(query[d], two.x, score);
            score = fma(query[d + 1u], two.y, score);
          }
        }
      } else {
        for (var d = 0u; d < headDim; d++) {
          score = fma(query[d], keyAt(base + d), score);
        }
      }
      if (hasPositionBias) {
        // How far the key lies before the query, at most `reach`.
        let distance = min(visible - 1u - start - i, params.reach);
        score += positionBias[(params.reach - distance) * params.heads + head];
      }
      bases[i] = base;
      scores[i] = score;
    }
    workgroupBarrier();

    var tileHighest = highest;
    for (var i = 0u; i < count; i++) {
      tileHighest = max(tileHighest, scores[i]);
    }
    let shrink = exp(highest - tileHighest);
    highest = tileHighest;
    total *= shrink;
    for (var part = 0u; part < owned; part++) {
      sums[part] *= shrink;
    }
    workgroupBarrier();
    for (var i = lane; i < count; i += lanes) {
      scores[i] = exp(scores[i] - highest);
    }
    workgroupBarrier();
    for (var i = 0u; i < count; i++) {
      let weight = scores[i];
      let base = bases[i];
      total += weight;
      for (var part = 0u; part < owned; part++) {
        sums[part] = fma(vec2f(weight), valuesAt(base, lane + part * lanes), sums[part]);
      }
    }
    workgroupBarrier();
  }

  let partial = ((group.y * params.heads + head) * params.spans + group.z) * (headDim + 2u);
  let to = select(place, partial, joined);
  for (var part = 0u; part < owned; part++) {
    let share = lane + part * lanes;
    if (share < words) {
      var mixed = sums[part];
      if (!joined) {
        mixed = select(vec2f(), mixed / total, visible > 0u);
      }
      result[to + pair * share] = mixed.x;
      if (pair == 2u) {
        result[to + pair * share + 1u] = mixed.y;
      }
    }
  }
  if (joined && lane == 0u) {
    result[to + headDim] = total;
    result[to + headDim + 1u] = highest;
  }
}
