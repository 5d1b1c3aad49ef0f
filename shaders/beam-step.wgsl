// One step of beam search on an item's `keep` best candidates, best first. n = ids generated so far, this one included.
//
//   hit[k]      = its token ends a sequence, or n = maxNew
//   running     = the `beams` highest of  score[k] - 1e9 * hit[k]
//   ended       = the `beams` highest of  the ended so far, and score[k] / divisor[n] - 1e9 * !(hit[k] and k < beams)
//   done        = all hit, or best running / divisor[n] <= the worst ended where all `beams` ended (else -1e9)
//
// Of equal ones the first stays first, the ended so far before candidates. divisor[n] = n ^ lengthPenalty from the host.
//
// candidates: (items, keep) of (score as f32 bits, beam * vocabulary + id). The place 0xffffffff is no candidate at all
// (every score not a number): it does not run on and is no real end, so that an item of them is done without one.
// settings: (items, settingsWidth) of (maxNew, minNew, penalty, promptLength, divisor[1], divisor[2], … as f32 bits).
// stopIds: `stopCount` ids that end a sequence. history: (items * beams, newRows): the ids of each running beam.
// progress: (items, 2 + beams) of (generated, done, running scores as f32 bits).
// choice: (items * beams) of (token, parent beam): what each running beam appends, and to which.
// ended: (items * beams, 3 + newRows) of (is a real end, score as f32 bits, length, ids…), best first.
// One workgroup per item: lane 0 decides, then each lane moves whole columns of `ended`, which is why that may happen
// in place. An item that was done before stays as it is. `mostBeams` and `mostKept` are room for beams and candidates;
// loops run to the true numbers, so that one compiled shader serves many and no driver unrolls them.
const lanes = 64u;
const mostBeams = 4u;
const mostKept = 8u;
const far = -1.0e9f;
const none = 0xffffffffu;

struct Params {
  vocabulary: u32,
  settingsWidth: u32,
  stopCount: u32,
  newRows: u32,
  beams: u32,
  keep: u32,
}

@group(0) @binding(0) var<storage, read> candidates: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read> settings: array<u32>;
@group(0) @binding(2) var<storage, read> stopIds: array<u32>;
@group(0) @binding(3) var<storage, read> history: array<u32>;
@group(0) @binding(4) var<storage, read_write> progress: array<u32>;
@group(0) @binding(5) var<storage, read_write> choice: array<vec2<u32>>;
@group(0) @binding(6) var<storage, read_write> ended: array<u32>;
@group(0) @binding(7) var<uniform> params: Params;

/// What the ended record j becomes: an older record (< beams) or candidate k (beams + k), and whether it really ended.
var<workgroup> sources: array<u32, mostBeams>;
var<workgroup> scores: array<f32, mostBeams>;
var<workgroup> real: array<u32, mostBeams>;

fn ends(id: u32) -> bool {
  for (var s = 0u; s < params.stopCount; s++) {
    if (stopIds[s] == id) {
      return true;
    }
  }
  return false;
}

/// All of lane 0's work; `generated` counts the ids before this step.
fn decide(item: u32, generated: u32) {
  let beams = params.beams;
  let keep = params.keep;
  let state = item * (2u + beams);
  let setting = item * params.settingsWidth;
  let length = generated + 1u;
  let full = length >= settings[setting];
  let divisor = bitcast<f32>(settings[setting + 3u + length]);
  let recordWidth = 3u + params.newRows;

  // Places 0 .. beams-1 are the ended so far, beams .. beams+keep-1 the candidates.
  var merged: array<f32, mostBeams + mostKept>;
  var isReal: array<bool, mostBeams + mostKept>;
  var open: array<f32, mostKept>;
  for (var j = 0u; j < beams; j++) {
    let record = (item * beams + j) * recordWidth;
    merged[j] = bitcast<f32>(ended[record + 1u]);
    isReal[j] = ended[record] == 1u;
  }
  var allHit = true;
  for (var k = 0u; k < keep; k++) {
    let candidate = candidates[item * keep + k];
    let score = bitcast<f32>(candidate.x);
    let hit = full || candidate.y == none || ends(candidate.y % params.vocabulary);
    let counts = hit && k < beams && candidate.y != none;
    allHit = allHit && hit;
    isReal[beams + k] = counts;
    open[k] = score + select(0.0, far, hit);
    merged[beams + k] = score / divisor + select(far, 0.0, counts);
  }

  var bestRunning = 0.0;
  var takenOpen: array<bool, mostKept>;
  for (var b = 0u; b < beams; b++) {
    var pick = keep;
    for (var k = 0u; k < keep; k++) {
      if (!takenOpen[k] && (pick == keep || open[k] > open[pick])) {
        pick = k;
      }
    }
    takenOpen[pick] = true;
    if (b == 0u) {
      bestRunning = open[pick];
    }
    let place = candidates[item * keep + pick].y;
    choice[item * beams + b] = vec2(place % params.vocabulary, place / params.vocabulary);
    progress[state + 2u + b] = bitcast<u32>(open[pick]);
  }

  var takenMerged: array<bool, mostBeams + mostKept>;
  var allReal = true;
  for (var b = 0u; b < beams; b++) {
    var pick = beams + keep;
    for (var k = 0u; k < beams + keep; k++) {
      if (!takenMerged[k] && (pick == beams + keep || merged[k] > merged[pick])) {
        pick = k;
      }
    }
    takenMerged[pick] = true;
    sources[b] = pick;
    scores[b] = merged[pick];
    real[b] = select(0u, 1u, isReal[pick]);
    allReal = allReal && isReal[pick];
  }
  let worst = select(far, scores[beams - 1u], allReal);
  let done = allHit || !(bestRunning / divisor > worst);
  progress[state] = length;
  progress[state + 1u] = select(0u, 1u, done);
}

@compute @workgroup_size(lanes)
fn beamStep(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let item = group.x;
  let beams = params.beams;
  let keep = params.keep;
  let generated = progress[item * (2u + beams)];
  let over = progress[item * (2u + beams) + 1u] != 0u;
  storageBarrier();
  if (lane == 0u && !over) {
    decide(item, generated);
  }
  workgroupBarrier();
  storageBarrier();
  if (over) {
    return;
  }

  let recordWidth = 3u + params.newRows;
  for (var column = lane; column < recordWidth; column += lanes) {
    var old: array<u32, mostBeams>;
    for (var j = 0u; j < beams; j++) {
      old[j] = ended[(item * beams + j) * recordWidth + column];
    }
    for (var j = 0u; j < beams; j++) {
      let source = sources[j];
      var value = 0u;
      if (source < beams) {
        value = old[source];
      } else {
        let place = candidates[item * keep + source - beams].y;
        let parent = min(place / params.vocabulary, beams - 1u);
        if (column == 2u) {
          value = generated + 1u;
        } else if (column >= 3u && column - 3u < generated) {
          value = history[(item * beams + parent) * params.newRows + column - 3u];
        } else if (column >= 3u && column - 3u == generated) {
          value = place % params.vocabulary;
        }
      }
      if (column == 0u) {
        value = real[j];
      } else if (column == 1u) {
        value = bitcast<u32>(scores[j]);
      }
      ended[(item * beams + j) * recordWidth + column] = value;
    }
  }
}
