// After a step chose token[b] and parent[b] for every beam b of an item, everything that belongs to a beam follows it:
//
//   seen[b]    = seen[parent[b]]    with the bit of token[b]
//   table[b]   = table[parent[b]]   with table[b, promptLength + t] = slot of (b, t)
//   history[b] = history[parent[b]] with history[b, t] = token[b]
//   cursors[b] = (token[b], promptLength + t, slot of (b, t), b)         t = ids generated before this one
//
// A row r is (item r / beams, beam r % beams). slot of (b, t) = (item + 1) * promptSlots + r * newRows + t: an item's slots are
// those of its prompt, then newRows of each beam. No other row or step uses it, so beams that part need no copies.
// seen: (rows, seenWords) bits. table: (rows, positions). history: (rows, newRows). cursors: (rows).
// choice: (rows) of (token, parent beam). settings: (items, settingsWidth), promptLength in column 3.
// progress: (items, 2 + beams) of (generated, this one included, done, …). An item that is done stays as it is,
// but for its cursors: they become nothing, so that what follows reads and writes no cache for it.
// One invocation per (column, item): it reads that column of all beams before it writes any, so no copy is needed. `mostBeams` is room
// for beams; loops run to the true number, so that one compiled shader serves many and no driver unrolls them.
const lanes = 64u;
const mostBeams = 4u;
const none = 0xffffffffu;

struct Params {
  seenWords: u32,
  positions: u32,
  newRows: u32,
  settingsWidth: u32,
  promptSlots: u32,
  beams: u32,
}

@group(0) @binding(0) var<storage, read> choice: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read> settings: array<u32>;
@group(0) @binding(2) var<storage, read> progress: array<u32>;
@group(0) @binding(3) var<storage, read_write> cursors: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read_write> seen: array<u32>;
@group(0) @binding(5) var<storage, read_write> table: array<u32>;
@group(0) @binding(6) var<storage, read_write> history: array<u32>;
@group(0) @binding(7) var<uniform> params: Params;

@compute @workgroup_size(lanes)
fn advance(@builtin(global_invocation_id) at: vec3<u32>) {
  let beams = params.beams;
  let column = at.x;
  let item = at.y;
  let state = item * (2u + beams);
  if (progress[state + 1u] != 0u) {
    if (column < beams) {
      cursors[item * beams + column] = vec4(none);
    }
    return;
  }
  let t = progress[state] - 1u;
  let position = settings[item * params.settingsWidth + 3u] + t;

  var tokens: array<u32, mostBeams>;
  var parents: array<u32, mostBeams>;
  for (var b = 0u; b < beams; b++) {
    let picked = choice[item * beams + b];
    tokens[b] = picked.x;
    parents[b] = min(picked.y, beams - 1u);
  }
  var old: array<u32, mostBeams>;
  if (column < params.seenWords) {
    for (var b = 0u; b < beams; b++) {
      old[b] = seen[(item * beams + b) * params.seenWords + column];
    }
    for (var b = 0u; b < beams; b++) {
      let bit = select(0u, 1u << (tokens[b] & 31u), tokens[b] >> 5u == column);
      seen[(item * beams + b) * params.seenWords + column] = old[parents[b]] | bit;
    }
  }
  if (column < params.positions) {
    for (var b = 0u; b < beams; b++) {
      old[b] = table[(item * beams + b) * params.positions + column];
    }
    for (var b = 0u; b < beams; b++) {
      let row = item * beams + b;
      let slot = (item + 1u) * params.promptSlots + row * params.newRows + t;
      table[row * params.positions + column] = select(old[parents[b]], slot, column == position);
    }
  }
  if (column < params.newRows) {
    for (var b = 0u; b < beams; b++) {
      old[b] = history[(item * beams + b) * params.newRows + column];
    }
    for (var b = 0u; b < beams; b++) {
      history[(item * beams + b) * params.newRows + column] = select(old[parents[b]], tokens[b], column == t);
    }
  }
  if (column == 0u) {
    for (var b = 0u; b < beams; b++) {
      let row = item * beams + b;
      cursors[row] = vec4(tokens[b], position, (item + 1u) * params.promptSlots + row * params.newRows + t, row);
    }
  }
}
