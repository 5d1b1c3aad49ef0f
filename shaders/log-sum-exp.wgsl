// partials[r, c] = (m, sum_i exp(logits[r, i] - m)),  m = max_i logits[r, i],  over the ids i of chunk c
//
// logits: (rows, vocabulary) f32. partials: (rows, chunks) of two f32. The ids of chunk c are [c * chunk, (c + 1) * chunk),
// the last chunk cut at the vocabulary. log(sum exp) over the row follows from the partials without another pass.
// One workgroup per (chunk, row): lanes stride over the chunk, lane 0 adds theirs in order of lanes.
const lanes = 64u;
const chunk = 1024u;
const lowest = -3.4028234e38f;

struct Params {
  vocabulary: u32,
}

@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read_write> partials: array<vec2<f32>>;
@group(0) @binding(2) var<uniform> params: Params;

var<workgroup> highs: array<f32, lanes>;
var<workgroup> sums: array<f32, lanes>;

@compute @workgroup_size(lanes)
fn logSumExp(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = group.y * params.vocabulary;
  let end = min((group.x + 1u) * chunk, params.vocabulary);
  var high = lowest;
  for (var i = group.x * chunk + lane; i < end; i += lanes) {
    high = max(high, logits[row + i]);
  }
  highs[lane] = high;
  workgroupBarrier();
  for (var k = 0u; k < lanes; k++) {
    high = max(high, highs[k]);
  }
  var sum = 0.0;
  for (var i = group.x * chunk + lane; i < end; i += lanes) {
    sum += exp(logits[row + i] - high);
  }
  sums[lane] = sum;
  workgroupBarrier();
  if (lane == 0u) {
    for (var k = 1u; k < lanes; k++) {
      sum += sums[k];
    }
    partials[group.y * groups.x + group.x] = vec2(high, sum);
  }
}
