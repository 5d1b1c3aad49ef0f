// candidates[item, k] = the k-th highest of scores[item] as one list of beams * vocabulary; of equal ones the lowest
// place in that list first. place = beam * vocabulary + id.
//
// scores: (items * beams, vocabulary) f32. best: (items * beams, chunks) of (score as f32 bits, id): the head of each
// chunk in that order. candidates: (items, keep) of (score as f32 bits, place); nothing left: place 0xffffffff.
// One workgroup per item, a tournament: take the best of all chunk heads, then find the next one of that chunk alone.
// A chunk holds the ids [c * chunk, (c + 1) * chunk). `mostHeads` is room for beams * chunks heads.
const lanes = 64u;
const chunk = 1024u;
const mostHeads = 16u;
const lowest = -3.4028234e38f;
const none = 0xffffffffu;

struct Params {
  vocabulary: u32,
  keep: u32,
  beams: u32,
  chunks: u32,
}

@group(0) @binding(0) var<storage, read> scores: array<f32>;
@group(0) @binding(1) var<storage, read> best: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read_write> candidates: array<vec2<u32>>;
@group(0) @binding(3) var<uniform> params: Params;

var<workgroup> headValues: array<f32, mostHeads>;
var<workgroup> headPlaces: array<u32, mostHeads>;
var<workgroup> values: array<f32, lanes>;
var<workgroup> places: array<u32, lanes>;

fn before(value: f32, place: u32, otherValue: f32, otherPlace: u32) -> bool {
  return value > otherValue || (value == otherValue && place < otherPlace);
}

@compute @workgroup_size(lanes)
fn beamCandidates(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let item = group.x;
  let heads = params.beams * params.chunks;
  for (var h = lane; h < heads; h += lanes) {
    let head = best[item * heads + h];
    headValues[h] = bitcast<f32>(head.x);
    headPlaces[h] = select((h / params.chunks) * params.vocabulary + head.y, none, head.y == none);
  }
  workgroupBarrier();

  for (var k = 0u; k < params.keep; k++) {
    var value = lowest;
    var place = none;
    for (var h = lane; h < heads; h += lanes) {
      if (before(headValues[h], headPlaces[h], value, place)) {
        value = headValues[h];
        place = headPlaces[h];
      }
    }
    values[lane] = value;
    places[lane] = place;
    workgroupBarrier();
    for (var other = 0u; other < lanes; other++) {
      if (before(values[other], places[other], value, place)) {
        value = values[other];
        place = places[other];
      }
    }
    if (lane == 0u) {
      candidates[item * params.keep + k] = vec2(bitcast<u32>(value), place);
    }
    workgroupBarrier();

    // The winner leaves its chunk: the next head is the first one after it.
    let beam = place / params.vocabulary;
    let inBeam = place % params.vocabulary;
    let c = inBeam / chunk;
    var nextValue = lowest;
    var nextPlace = none;
    if (place != none) {
      let end = min((c + 1u) * chunk, params.vocabulary);
      for (var i = c * chunk + lane; i < end; i += lanes) {
        let score = scores[(item * params.beams + beam) * params.vocabulary + i];
        let at = beam * params.vocabulary + i;
        if (before(value, place, score, at) && before(score, at, nextValue, nextPlace)) {
          nextValue = score;
          nextPlace = at;
        }
      }
    }
    values[lane] = nextValue;
    places[lane] = nextPlace;
    workgroupBarrier();
    if (lane == 0u && place != none) {
      for (var other = 1u; other < lanes; other++) {
        if (before(values[other], places[other], nextValue, nextPlace)) {
          nextValue = values[other];
          nextPlace = places[other];
        }
      }
      headValues[beam * params.chunks + c] = nextValue;
      headPlaces[beam * params.chunks + c] = nextPlace;
    }
    workgroupBarrier();
  }
}
