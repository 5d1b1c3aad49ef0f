// best[r, c] = (max, argmax) over the kept ids i of chunk c of  scores[r, i] - high[r] + noise[r, i]
//
// noise = -log(E), E exponential, independent for every id: the argmax is id i with probability softmax(scores)[i] over
// the kept ids ("Gumbel-max": Gumbel, "Statistical Theory of Extreme Values" (1954); Maddison et al., "A* Sampling"
// (2014)). Nothing is summed, so chunks need not know of each other, and a small difference of scores between two
// adapters changes a choice only where two ids come equally close.
//
// E comes from Philox4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3" (2011)), a function of
//     counter (i / 4, ids generated, item low, item high) and key (seed low, seed high), word i % 4
// and of nothing else: neither the batch nor the cut into chunks has a part in it. v = (word + 1/2) / 2^32 and
// E = -log(1 - v): for v < 1/2 by the series of 2 atanh(v / (2 - v)), which keeps the relative accuracy of small E, the
// ones that win; else by log of (2^32 - word - 1/2) / 2^32.
//
// scores: (rows, vocabulary) f32. limits: (rows, 3) of (key, first, high as f32 bits) of sample-limits.wgsl.
// sampling: (rows, 8) of (…, seed low, seed high, item low, item high, unused) from column 3 on.
// progress: (rows, 3) of (generated, done, unused).
// best: (rows, chunks) of (value as f32 bits, id); of equal values the lowest id. A chunk that keeps nothing has the id
// 0xffffffff. The ids of chunk c are [c * chunk, (c + 1) * chunk), `chunk` a multiple of 4.
// One workgroup per (chunk, row): lanes stride over groups of four ids, lane 0 compares theirs.
const lanes = 64u;
const chunk = 1024u;
const lowest = -3.4028234e38f;
const none = 0xffffffffu;

struct Params {
  vocabulary: u32,
}

@group(0) @binding(0) var<storage, read> scores: array<f32>;
@group(0) @binding(1) var<storage, read> limits: array<u32>;
@group(0) @binding(2) var<storage, read> sampling: array<u32>;
@group(0) @binding(3) var<storage, read> progress: array<u32>;
@group(0) @binding(4) var<storage, read_write> best: array<vec2<u32>>;
@group(0) @binding(5) var<uniform> params: Params;

var<workgroup> values: array<f32, lanes>;
var<workgroup> ids: array<u32, lanes>;

fn keyOf(score: f32) -> u32 {
  let bits = bitcast<u32>(select(score, 0.0, score == 0.0));
  return select(bits | 0x80000000u, ~bits, (bits >> 31u) == 1u);
}

/// (high, low) word of the product of two words.
fn product(a: u32, b: u32) -> vec2<u32> {
  let low = (a & 0xffffu) * (b & 0xffffu);
  let mixed = (a >> 16u) * (b & 0xffffu);
  let other = (a & 0xffffu) * (b >> 16u);
  let carry = ((low >> 16u) + (mixed & 0xffffu) + (other & 0xffffu)) >> 16u;
  return vec2((a >> 16u) * (b >> 16u) + (mixed >> 16u) + (other >> 16u) + carry, a * b);
}

fn philox(counter: vec4<u32>, start: vec2<u32>) -> vec4<u32> {
  var words = counter;
  var key = start;
  for (var turn = 0u; turn < 10u; turn++) {
    let x = product(0xd2511f53u, words.x);
    let z = product(0xcd9e8d57u, words.z);
    words = vec4(z.x ^ words.y ^ key.x, z.y, x.x ^ words.w ^ key.y, x.y);
    key += vec2(0x9e3779b9u, 0xbb67ae85u);
  }
  return words;
}

fn exponential(word: u32) -> f32 {
  if (word >= 0x80000000u) {
    return -log((f32(~word) + 0.5) * 0x1p-32f);
  }
  let v = (f32(word) + 0.5) * 0x1p-32f;
  let t = v / (2.0 - v);
  let s = t * t;
  let series = 1.0 + s * (1.0 / 3.0 + s * (1.0 / 5.0 + s * (1.0 / 7.0 + s * (1.0 / 9.0 + s * (1.0 / 11.0 + s / 13.0)))));
  return 2.0 * t * series;
}

@compute @workgroup_size(lanes)
fn sampleBest(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = group.y;
  let end = min((group.x + 1u) * chunk, params.vocabulary);
  let limit = limits[3u * row];
  let first = limits[3u * row + 1u];
  let high = bitcast<f32>(limits[3u * row + 2u]);
  let seed = vec2(sampling[row * 8u + 3u], sampling[row * 8u + 4u]);
  let item = vec2(sampling[row * 8u + 5u], sampling[row * 8u + 6u]);
  let generated = progress[row * 3u];
  var value = lowest;
  var id = none;
  for (var four = group.x * chunk + 4u * lane; four < end; four += 4u * lanes) {
    var words = vec4(0u);
    var drawn = false;
    for (var j = 0u; j < 4u && four + j < end; j++) {
      let i = four + j;
      let score = scores[row * params.vocabulary + i];
      let key = keyOf(score);
      if (!(score > lowest) || key < limit || (key == limit && i < first)) {
        continue;
      }
      if (!drawn) {
        words = philox(vec4(four >> 2u, generated, item), seed);
        drawn = true;
      }
      let noisy = (score - high) - log(exponential(words[j]));
      if (noisy > value || (noisy == value && i < id)) {
        value = noisy;
        id = i;
      }
    }
  }
  values[lane] = value;
  ids[lane] = id;
  workgroupBarrier();
  if (lane == 0u) {
    for (var k = 1u; k < lanes; k++) {
      if (values[k] > value || (values[k] == value && ids[k] < id)) {
        value = values[k];
        id = ids[k];
      }
    }
    best[row * groups.x + group.x] = vec2(bitcast<u32>(value), id);
  }
}
