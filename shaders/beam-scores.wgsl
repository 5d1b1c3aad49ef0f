// scores[r, i] = running[r] + process(logits[r, i] - logSumExp(logits[r]))
// best[r, c]   = (max, argmax) of scores[r] over the ids of chunk c; of equal scores the lowest id
//
// A row r is (item r / beams, beam r % beams).
// process, on log-probabilities: divided by the item's repetition penalty if >= 0, multiplied if < 0, when the id was
// seen in the prompt or since; then the lowest number if the id ends a sequence and fewer than `minNew` ids are there.
//
// logits: (rows, vocabulary) f32. partials: (rows, chunks) of (m, sum exp(logit - m)) of log-sum-exp.wgsl.
// seen: (rows, seenWords) bits, id i is bit i % 32 of word i / 32. stopIds: `stopCount` ids that end a sequence.
// settings: (items, settingsWidth) of (maxNew, minNew, penalty as f32 bits, promptLength, …).
// progress: (items, 2 + beams) of (generated, done, running scores as f32 bits).
// scores: (rows, vocabulary) f32. best: (rows, chunks) of (score as f32 bits, id); ids of chunk c: [c * chunk, (c + 1) * chunk).
// One workgroup per (chunk, row). The best is taken after the running score is added, because the addition can make
// scores equal. Not a number never wins, nor where it is an end that comes too early: a chunk with nothing else has the id
// 0xffffffff.
const lanes = 64u;
const chunk = 1024u;
const lowest = -3.4028234e38f;
const none = 0xffffffffu;

struct Params {
  vocabulary: u32,
  seenWords: u32,
  settingsWidth: u32,
  stopCount: u32,
  beams: u32,
}

@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read> partials: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read> seen: array<u32>;
@group(0) @binding(3) var<storage, read> settings: array<u32>;
@group(0) @binding(4) var<storage, read> progress: array<u32>;
@group(0) @binding(5) var<storage, read> stopIds: array<u32>;
@group(0) @binding(6) var<storage, read_write> scores: array<f32>;
@group(0) @binding(7) var<storage, read_write> best: array<vec2<u32>>;
@group(0) @binding(8) var<uniform> params: Params;

var<workgroup> values: array<f32, lanes>;
var<workgroup> ids: array<u32, lanes>;

fn ends(id: u32) -> bool {
  for (var s = 0u; s < params.stopCount; s++) {
    if (stopIds[s] == id) {
      return true;
    }
  }
  return false;
}

@compute @workgroup_size(lanes)
fn beamScores(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = group.y;
  let item = row / params.beams;
  let end = min((group.x + 1u) * chunk, params.vocabulary);

  var high = lowest;
  for (var c = 0u; c < groups.x; c++) {
    high = max(high, partials[row * groups.x + c].x);
  }
  var sum = 0.0;
  for (var c = 0u; c < groups.x; c++) {
    let part = partials[row * groups.x + c];
    sum += part.y * exp(part.x - high);
  }
  let logSum = log(sum);

  let running = bitcast<f32>(progress[item * (2u + params.beams) + 2u + row % params.beams]);
  let penalty = bitcast<f32>(settings[item * params.settingsWidth + 2u]);
  let tooShort = progress[item * (2u + params.beams)] < settings[item * params.settingsWidth + 1u];
  var value = lowest;
  var id = none;
  for (var i = group.x * chunk + lane; i < end; i += lanes) {
    var score = (logits[row * params.vocabulary + i] - high) - logSum;
    if (((seen[row * params.seenWords + (i >> 5u)] >> (i & 31u)) & 1u) == 1u) {
      score = select(score / penalty, score * penalty, score < 0.0);
    }
    score += running;
    if (tooShort && score >= lowest && ends(i)) {
      score = lowest;
    }
    scores[row * params.vocabulary + i] = score;
    if (score > value || (score == value && i < id)) {
      value = score;
      id = i;
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
