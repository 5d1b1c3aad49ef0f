// token[r] = the id of the highest best[r, c] over the chunks c; of equal ones the lowest id. Then the row's books.
//
// best: (rows, chunks) of (score as f32 bits, id). settings: (rows, settingsWidth) of (maxNew, …).
// stopIds: the ids that end a sequence, `stopCount` of them.
// progress: (rows, 3) of (generated, done, unused): one more generated; done at an id that ends, or at maxNew.
// choice: (rows, 2) of (token, parent 0). ended: (rows, 3 + newRows) of (1, score of the last id as f32 bits, length, ids…): one id longer.
// A row that was done before stays as it is. No id at all (every score not a number) ends the row as id 0xffffffff.
// One invocation per row.
const lanes = 8u;
const lowest = -3.4028234e38f;
const none = 0xffffffffu;

struct Params {
  rows: u32,
  chunks: u32,
  settingsWidth: u32,
  stopCount: u32,
  newRows: u32,
}

@group(0) @binding(0) var<storage, read> best: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read> settings: array<u32>;
@group(0) @binding(2) var<storage, read> stopIds: array<u32>;
@group(0) @binding(3) var<storage, read_write> progress: array<u32>;
@group(0) @binding(4) var<storage, read_write> choice: array<vec2<u32>>;
@group(0) @binding(5) var<storage, read_write> ended: array<u32>;
@group(0) @binding(6) var<uniform> params: Params;

@compute @workgroup_size(lanes)
fn greedyStep(@builtin(global_invocation_id) at: vec3<u32>) {
  let row = at.x;
  if (row >= params.rows || progress[row * 3u + 1u] != 0u) {
    return;
  }
  var value = lowest;
  var token = none;
  for (var c = 0u; c < params.chunks; c++) {
    let other = best[row * params.chunks + c];
    let score = bitcast<f32>(other.x);
    if (score > value || (score == value && other.y < token)) {
      value = score;
      token = other.y;
    }
  }
  let generated = progress[row * 3u];
  var done = token == none || generated + 1u >= settings[row * params.settingsWidth];
  for (var s = 0u; s < params.stopCount; s++) {
    done = done || stopIds[s] == token;
  }
  let record = row * (3u + params.newRows);
  ended[record] = 1u;
  ended[record + 1u] = bitcast<u32>(value);
  ended[record + 2u] = generated + 1u;
  ended[record + 3u + generated] = token;
  choice[row] = vec2(token, 0u);
  progress[row * 3u] = generated + 1u;
  progress[row * 3u + 1u] = select(0u, 1u, done);
}
