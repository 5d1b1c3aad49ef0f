// limits[r] = (key, first, high): id i is kept if keyOf(scores[r, i]) > key, or if it is equal and i >= first.
//
//   top-k   keeps the scores that are at least the k-th highest: of equal ones at the limit all.           (0: all)
//   top-p   keeps of those the fewest highest whose softmax sums to at least p, one at least: of equal ones at the
//           limit the highest ids, as a stable ascending sort leaves them.                                 (1: all)
//
// as transformers' TopKLogitsWarper, then TopPLogitsWarper (whose sort leaves equal scores in no certain order). high = the row's highest score, as f32 bits.
//
// keyOf() maps f32 to u32 in the same order (0 and -0 alike), so both limits are exact values of scores, found without
// sorting: the largest key K whose ids at or above it weigh at least the target, 1 each against k, exp(score - high)
// each against p times the sum. K is found four bits at a time from the top: a pass over the row weighs 16 candidates
// at once, so 8 passes settle 32 bits. Ids of equal score are cut by the same search over ids.
//
// scores: (rows, vocabulary) f32, highs: (rows, chunks) f32 of sample-scores.wgsl. limits: (rows, 3).
// sampling: (rows, 8) of (…, k, p as f32 bits, …).
// One workgroup per row. Each lane adds up blocks of `block` terms and then those sums, lane 0 adds the lanes' in order:
// f32 sums of a whole vocabulary, off by a few last places. Adding is monotonous and always in the same order, so the
// weight at or above a key never grows with the key, and counts are exact. Where the weight of an id decides about the
// limit by less than that rounding, another order of summation (transformers') may keep one id more or fewer.
const lanes = 64u;
const block = 64u;

// What an id weighs in a pass: 1, its part of the softmax, or 1 if its key is the limit's.
const counting = 0u;
const weighing = 1u;
const choosing = 2u;

// What a pass is for; searches take eight. One loop over them all: a call for each would be compiled six times over.
const kth = 0u; // a search for the k-th highest key
const sum = 1u; // of the softmax above that
const nucleus = 2u; // a search for the key down to which it sums to p
const above = 3u; // what lies above that key
const ties = 4u; // how many ids have that key
const cut = 5u; // a search for the first of them that is kept
const done = 6u;

struct Params {
  vocabulary: u32,
  chunks: u32,
}

@group(0) @binding(0) var<storage, read> scores: array<f32>;
@group(0) @binding(1) var<storage, read> highs: array<f32>;
@group(0) @binding(2) var<storage, read> sampling: array<u32>;
@group(0) @binding(3) var<storage, read_write> limits: array<u32>;
@group(0) @binding(4) var<uniform> params: Params;

var<workgroup> parts: array<vec4<f32>, 4u * lanes>;
var<workgroup> totals: array<f32, 16>;
var<workgroup> next: u32;

fn keyOf(score: f32) -> u32 {
  let bits = bitcast<u32>(select(score, 0.0, score == 0.0));
  return select(bits | 0x80000000u, ~bits, (bits >> 31u) == 1u);
}

fn scoreOf(key: u32) -> f32 {
  return bitcast<f32>(select(~key, key & 0x7fffffffu, (key >> 31u) == 1u));
}

/// What one lane works on: its row, its place in the workgroup, and the row's highest score.
struct Lane {
  row: u32,
  index: u32,
  high: f32,
}

/// totals[d] = weight of the places >= start + (d << shift), d = 0 .. 15. The place of an id is its key; in `choosing`
/// the id itself, and only ids whose key is `at` weigh anything.
fn weigh(own: Lane, what: u32, at: u32, start: u32, shift: u32) {
  let steps = vec4<u32>(0u, 1u, 2u, 3u) << vec4(shift);
  let next = 4u << shift;
  let a = vec4(start) + steps;
  let b = a + vec4(next);
  let c = b + vec4(next);
  let d = c + vec4(next);
  var sumA = vec4(0.0);
  var sumB = vec4(0.0);
  var sumC = vec4(0.0);
  var sumD = vec4(0.0);
  for (var base = own.index; base < params.vocabulary; base += lanes * block) {
    let end = min(base + lanes * block, params.vocabulary);
    var partA = vec4(0.0);
    var partB = vec4(0.0);
    var partC = vec4(0.0);
    var partD = vec4(0.0);
    for (var i = base; i < end; i += lanes) {
      let score = scores[own.row * params.vocabulary + i];
      let key = keyOf(score);
      var place = key;
      var weight = 1.0;
      if (what == weighing) {
        weight = exp(score - own.high);
      }
      if (what == choosing) {
        place = i;
        weight = select(0.0, 1.0, key == at);
      }
      partA += select(vec4(0.0), vec4(weight), vec4(place) >= a);
      partB += select(vec4(0.0), vec4(weight), vec4(place) >= b);
      partC += select(vec4(0.0), vec4(weight), vec4(place) >= c);
      partD += select(vec4(0.0), vec4(weight), vec4(place) >= d);
    }
    sumA += partA;
    sumB += partB;
    sumC += partC;
    sumD += partD;
  }
  parts[4u * own.index] = sumA;
  parts[4u * own.index + 1u] = sumB;
  parts[4u * own.index + 2u] = sumC;
  parts[4u * own.index + 3u] = sumD;
  workgroupBarrier();
  for (var t = own.index; t < 16u; t += lanes) {
    var total = 0.0;
    for (var l = 0u; l < lanes; l++) {
      total += parts[4u * l + t / 4u][t % 4u];
    }
    totals[t] = total;
  }
  workgroupBarrier();
}

@compute @workgroup_size(lanes)
fn sampleLimits(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let row = group.x;
  var high = highs[row * params.chunks];
  for (var c = 1u; c < params.chunks; c++) {
    high = max(high, highs[row * params.chunks + c]);
  }
  let own = Lane(row, lane, high);
  let topK = sampling[row * 8u + 1u];
  let topP = bitcast<f32>(sampling[row * 8u + 2u]);
  var key = 0u;
  var first = 0u;
  // Of a search: so much is to lie at or above the place, which is found four bits at a time.
  var aim = f32(topK);
  var found = 0u;
  var turn = 0u;
  var higher = 0.0;
  if (lane == 0u) {
    next = select(select(done, sum, topP < 1.0), kth, topK > 0u);
  }
  loop {
    let stage = workgroupUniformLoad(&next);
    if (stage == done) {
      break;
    }
    let searching = stage == kth || stage == nucleus || stage == cut;
    let what = select(select(weighing, choosing, stage == cut), counting, stage == kth || stage == ties);
    let shift = select(0u, 28u - 4u * turn, searching);
    weigh(own, what, key, select(key, found, searching), shift);
    var follows = stage;
    if (searching) {
      var digit = 0u;
      for (var d = 1u; d < 16u; d++) {
        if (totals[d] >= aim) {
          digit = d;
        }
      }
      found += digit << shift;
      turn += 1u;
      if (turn == 8u) {
        if (stage == kth) {
          key = found;
          follows = select(done, sum, topP < 1.0);
        } else if (stage == nucleus) {
          // With p = 0 every key would do; the highest score's is the last that has an id.
          key = min(found, keyOf(high));
          follows = above;
        } else {
          first = found;
          follows = done;
        }
        found = 0u;
        turn = 0u;
      }
    } else if (stage == sum) {
      aim = topP * totals[0];
      follows = nucleus;
    } else if (stage == above) {
      higher = totals[1];
      follows = ties;
    } else {
      let equal = totals[0] - totals[1];
      aim = clamp(ceil((aim - higher) / exp(scoreOf(key) - high)), 1.0, equal);
      follows = select(done, cut, aim < equal);
    }
    if (lane == 0u) {
      next = follows;
    }
  }
  if (lane == 0u) {
    limits[3u * row] = key;
    limits[3u * row + 1u] = first;
    limits[3u * row + 2u] = bitcast<u32>(high);
  }
}
