// best[r, c] = (max, argmax) over the ids i of chunk c of score[r, i]; of equal scores the lowest id.
//
// score = the logit; divided by the row's repetition penalty if it is >= 0, multiplied if it is < 0, when the id was
// seen in the prompt or since; then the lowest number if the id ends a sequence and fewer than `minNew` ids are there.
//
// logits: (rows, vocabulary) f32. seen: (rows, seenWords) bits, id i is bit i % 32 of word i / 32.
// settings: (rows, settingsWidth) of (maxNew, minNew, penalty as f32 bits, promptLength, …).
// progress: (rows, 3) of (generated, done, unused). stopIds: the ids that end a sequence, `stopCount` of them.
// best: (rows, chunks) of (score as f32 bits, id). Chunk c holds the ids [c * chunk, (c + 1) * chunk).
// One workgroup per (chunk, row): lanes stride over the chunk, lane 0 compares theirs. Not a number never wins, nor where it is
// an end that comes too early: a chunk with nothing else has the id 0xffffffff.
const lanes = 64u;
const chunk = 1024u;
const lowest = -3.4028234e38f;
const none = 0xffffffffu;

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
@group(0) @binding(5) var<storage, read_write> best: array<vec2<u32>>;
@group(0) @binding(6) var<uniform> params: Params;

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
fn greedyScores(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = group.y;
  let end = min((group.x + 1u) * chunk, params.vocabulary);
  let penalty = bitcast<f32>(settings[row * params.settingsWidth + 2u]);
  let tooShort = progress[row * 3u] < settings[row * params.settingsWidth + 1u];
  var value = lowest;
  var id = none;
  for (var i = group.x * chunk + lane; i < end; i += lanes) {
    var score = logits[row * params.vocabulary + i];
    if (((seen[row * params.seenWords + (i >> 5u)] >> (i & 31u)) & 1u) == 1u) {
      score = select(score / penalty, score * penalty, score < 0.0);
    }
    if (tooShort && score >= lowest && ends(i)) {
      score = lowest;
    }
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
