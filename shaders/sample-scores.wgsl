// scores[r, i] = process(logits[r, i]) / temperature[r]        highs[r, c] = max of scores[r] over the ids of chunk c
//
// process, as greedy-scores.wgsl does it: the logit divided by the row's repetition penalty if it is >= 0, multiplied if
// it is < 0, when the id was seen; an id that ends a sequence before `minNew` ids are there is forbidden.
// A forbidden id, and not a number, score the lowest number, which the kernels that follow never take.
//
// logits: (rows, vocabulary) f32. seen: (rows, seenWords) bits, id i is bit i % 32 of word i / 32.
// settings: (rows, settingsWidth) of (maxNew, minNew, penalty as f32 bits, …). stopIds: `stopCount` ids that end a sequence.
// progress: (rows, 3) of (generated, done, unused). sampling: (rows, 8) of (temperature as f32 bits, …).
// scores: (rows, vocabulary) f32. highs: (rows, chunks) f32; the ids of chunk c are [c * chunk, (c + 1) * chunk).
// One workgroup per (chunk, row). Scores stay within f32: a tiny temperature ends at the largest numbers, not at infinity,
// whose differences would be no numbers.
const lanes = 64u;
const chunk = 1024u;
const lowest = -3.4028234e38f;
const largest = 3.0e38f;

struct Params {
  vocabulary: u32,
  seenWords: u32,
  settingsWidth: u32,
  stopCount: u32,
}

@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read> seen: array<u32>;
@group(0) @binding(2) var<storage, read> settings: array<u32>;
@group(0) @binding(3) var<storage, read> progress: array<u32>;
@group(0) @binding(4) var<storage, read> stopIds: array<u32>;
@group(0) @binding(5) var<storage, read> sampling: array<u32>;
@group(0) @binding(6) var<storage, read_write> scores: array<f32>;
@group(0) @binding(7) var<storage, read_write> highs: array<f32>;
@group(0) @binding(8) var<uniform> params: Params;

var<workgroup> best: array<f32, lanes>;

fn ends(id: u32) -> bool {
  for (var s = 0u; s < params.stopCount; s++) {
    if (stopIds[s] == id) {
      return true;
    }
  }
  return false;
}

@compute @workgroup_size(lanes)
fn sampleScores(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = group.y;
  let end = min((group.x + 1u) * chunk, params.vocabulary);
  let penalty = bitcast<f32>(settings[row * params.settingsWidth + 2u]);
  let temperature = bitcast<f32>(sampling[row * 8u]);
  let tooShort = progress[row * 3u] < settings[row * params.settingsWidth + 1u];
  var high = lowest;
  for (var i = group.x * chunk + lane; i < end; i += lanes) {
    let logit = logits[row * params.vocabulary + i];
    var score = lowest;
    if (logit > lowest && !(tooShort && ends(i))) {
      score = logit;
      if (((seen[row * params.seenWords + (i >> 5u)] >> (i & 31u)) & 1u) == 1u) {
        score = select(score / penalty, score * penalty, score < 0.0);
      }
      score = clamp(score / temperature, -largest, largest);
    }
    scores[row * params.vocabulary + i] = score;
    high = max(high, score);
  }
  best[lane] = high;
  workgroupBarrier();
  if (lane == 0u) {
    for (var k = 1u; k < lanes; k++) {
      high = max(high, best[k]);
    }
    highs[row * groups.x + group.x] = high;
  }
}
