// One step along ids that are given, not chosen: what each adds to the log-probability of its sequence.
//
//   running[item, b] += logits[source, id] - logSumExp(logits[source])      id = given[row, t], t = ids before this step
//
// A row is (item, b), b one of the item's `beams` sequences, which share its prompt; row = item * beams + b.
// source = row, or with `perItem` = 1 (the first step) the item's one row of logits.
//
// logits: (rows or items, vocabulary) f32. partials: (same, chunks) of (m, sum exp(logit - m)) of log-sum-exp.wgsl.
// given: (rows, newRows) ids, 0xffffffff behind the end of a sequence: nothing more is added to it.
// settings: (items, settingsWidth) of (longest sequence of the item, …).
// progress: (items, 2 + beams) of (generated, done, running sums as f32 bits). Done at the longest; an item that was
// done before stays as it is.
// choice: (rows) of (id, parent): each sequence goes on by itself; id 0 behind its end, where nothing is read of it.
// One workgroup per item, lanes stride over its sequences. Lane 0 alone reads and writes the count.
const lanes = 64u;
const none = 0xffffffffu;

struct Params {
  vocabulary: u32,
  chunks: u32,
  settingsWidth: u32,
  newRows: u32,
  perItem: u32,
  beams: u32,
}

@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read> partials: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read> given: array<u32>;
@group(0) @binding(3) var<storage, read> settings: array<u32>;
@group(0) @binding(4) var<storage, read_write> progress: array<u32>;
@group(0) @binding(5) var<storage, read_write> choice: array<vec2<u32>>;
@group(0) @binding(6) var<uniform> params: Params;

/// Ids before this step; `none` for an item that is done.
var<workgroup> before: u32;

@compute @workgroup_size(lanes)
fn givenStep(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let item = group.x;
  let state = item * (2u + params.beams);
  if (lane == 0u) {
    before = select(progress[state], none, progress[state + 1u] != 0u);
  }
  let t = workgroupUniformLoad(&before);
  if (t == none) {
    return;
  }
  for (var b = lane; b < params.beams; b += lanes) {
    let row = item * params.beams + b;
    let source = select(row, item, params.perItem == 1u);
    let id = given[row * params.newRows + t];
    choice[row] = vec2(select(id, 0u, id == none), b);
    if (id == none) {
      continue;
    }
    var high = partials[source * params.chunks].x;
    for (var c = 1u; c < params.chunks; c++) {
      high = max(high, partials[source * params.chunks + c].x);
    }
    var sum = 0.0;
    for (var c = 0u; c < params.chunks; c++) {
      let part = partials[source * params.chunks + c];
      sum += part.y * exp(part.x - high);
    }
    let added = (logits[source * params.vocabulary + id] - high) - log(sum);
    progress[state + 2u + b] = bitcast<u32>(bitcast<f32>(progress[state + 2u + b]) + added);
  }
  if (lane == 0u) {
    progress[state] = t + 1u;
    progress[state + 1u] = select(0u, 1u, t + 1u >= settings[item * params.settingsWidth]);
  }
}
