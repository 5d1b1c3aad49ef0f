// attended[r, h, :] = sum_p softmax_p(score_rhp) * value[place(p), h, :]
// with score_rhp = scale * query[r, h, :] . key[place(p), h, :]
// over the positions p = 0 .. position[r], so a row sees itself and what came before it; with `hasContexts` at least over
// p < contexts[sequence[r]], so that the rows of a context see all of it.
//
// queries, attended: (rows, heads, headDim) f32. cursors: (rows) of (token, position, slot, sequence).
// table: (sequences, positions): place(p) = table[sequence[r], p] is the cache row that holds position p.
// keyCache, valueCache: (slots, stride): f32 words, or with `half` packed f16 pairs, low half first; stride in elements.
// A row without position becomes zeros.
// With `hasPositionBias` score_rhp gets positionBias[max(p - position[r], -reach) + reach, h] on top; positionBias:
// (2 * reach + 1, heads) f32, of which only the first reach + 1 rows can be asked for here.
// One workgroup per (head, row). It walks the positions in tiles: each lane takes whole dot products, then each lane
// owns some of the head's elements and adds the tile's values. The softmax is f32, with a running maximum, so that
// sums do not depend on how long the cache could be. Tiles start at position 0 for every row: the order of every sum
// is a function of the row's position alone.
const lanes = 64u;
const headDim = 8u;
const tile = 64u;
const half = false;
const hasPositionBias = false;
const hasContexts = false;
const none = 0xffffffffu;
const owned = (headDim + lanes - 1u) / lanes;

struct Params {
  heads: u32,
  positions: u32,
  stride: u32,
  scale: f32,
  reach: u32,
}

@group(0) @binding(0) var<storage, read> queries: array<f32>;
@group(0) @binding(1) var<storage, read> keyCache: array<u32>;
@group(0) @binding(2) var<storage, read> valueCache: array<u32>;
@group(0) @binding(3) var<storage, read> table: array<u32>;
@group(0) @binding(4) var<storage, read> cursors: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read> positionBias: array<f32>;
@group(0) @binding(6) var<storage, read> contexts: array<u32>;
@group(0) @binding(7) var<storage, read_write> attended: array<f32>;
@group(0) @binding(8) var<uniform> params: Params;

var<workgroup> query: array<f32, headDim>;
var<workgroup> places: array<u32, tile>;
var<workgroup> scores: array<f32, tile>;

fn keyAt(index: u32) -> f32 {
  if (half) {
    return unpack2x16float(keyCache[index >> 1u])[index & 1u];
  }
  return bitcast<f32>(keyCache[index]);
}

fn valueAt(index: u32) -> f32 {
  if (half) {
    return unpack2x16float(valueCache[index >> 1u])[index & 1u];
  }
  return bitcast<f32>(valueCache[index]);
}

@compute @workgroup_size(lanes)
fn cachedAttention(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let head = group.x;
  let row = group.y;
  let inRow = head * headDim;
  let place = (row * params.heads) * headDim + inRow;
  // `none` + 1 wraps to zero visible positions.
  var visible = cursors[row].y + 1u;
  let sequence = cursors[row].w;
  if (hasContexts && visible > 0u) {
    visible = max(visible, contexts[sequence]);
  }

  for (var d = lane; d < headDim; d += lanes) {
    query[d] = queries[place + d] * params.scale;
  }
  workgroupBarrier();

  var sums: array<f32, owned>;
  var total = 0.0;
  var highest = 0.0;
  for (var start = 0u; start < visible; start += tile) {
    let count = min(tile, visible - start);
    for (var i = lane; i < count; i += lanes) {
      let slot = table[sequence * params.positions + start + i];
      let base = slot * params.stride + inRow;
      var score = 0.0;
      for (var d = 0u; d < headDim; d++) {
        score += query[d] * keyAt(base + d);
      }
      if (hasPositionBias) {
        // How far the key lies before the query, at most `reach`.
        let distance = min(visible - 1u - start - i, params.reach);
        score += positionBias[(params.reach - distance) * params.heads + head];
      }
      places[i] = slot;
      scores[i] = score;
    }
    workgroupBarrier();

    var tileHighest = scores[0];
    for (var i = 1u; i < count; i++) {
      tileHighest = max(tileHighest, scores[i]);
    }
    if (start == 0u) {
      highest = tileHighest;
    } else if (tileHighest > highest) {
      let shrink = exp(highest - tileHighest);
      highest = tileHighest;
      total *= shrink;
      for (var k = 0u; k < owned; k++) {
        sums[k] *= shrink;
      }
    }
    for (var i = 0u; i < count; i++) {
      let weight = exp(scores[i] - highest);
      let base = places[i] * params.stride + inRow;
      total += weight;
      for (var k = 0u; k < owned; k++) {
        let d = lane + k * lanes;
        if (d < headDim) {
          sums[k] += weight * valueAt(base + d);
        }
      }
    }
    workgroupBarrier();
  }

  for (var k = 0u; k < owned; k++) {
    let d = lane + k * lanes;
    if (d < headDim) {
      attended[place + d] = select(0.0, sums[k] / total, visible > 0u);
    }
  }
}
