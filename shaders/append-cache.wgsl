// keyCache[slot[r], :] = keys[r, :]     valueCache[slot[r], :] = values[r, :]     ownQueries[r, :] = queries[r, :]
//
// queries, keys, values: (rows, width) f32 each, columns of wider rows perhaps: `width` from the column on, rows a stride
// apart; ownQueries: (rows, width) f32, with hasQueries. cursors: (rows) of (token, position, slot, sequence).
// keyCache, valueCache: (slots, words) u32: an f32 per word, or with `half` two f16, low half first (an odd width
// leaves the last half zero). A row without slot writes nothing into the cache.
// One invocation per word. f16 is rounded to nearest, ties to even, in integers, because pack2x16float may round as
// the driver likes; too large becomes infinity, and subnormals stay.
const lanes = 64u;
const half = false;
const hasQueries = false;
const none = 0xffffffffu;

struct Params {
  width: u32,
  words: u32,
  queryStride: u32,
  queryColumn: u32,
  keyStride: u32,
  keyColumn: u32,
  valueStride: u32,
  valueColumn: u32,
}

@group(0) @binding(0) var<storage, read> queries: array<f32>;
@group(0) @binding(1) var<storage, read> keys: array<f32>;
@group(0) @binding(2) var<storage, read> values: array<f32>;
@group(0) @binding(3) var<storage, read> cursors: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read_write> ownQueries: array<f32>;
@group(0) @binding(5) var<storage, read_write> keyCache: array<u32>;
@group(0) @binding(6) var<storage, read_write> valueCache: array<u32>;
@group(0) @binding(7) var<uniform> params: Params;

/// f32 bits -> f16 bits, nearest even.
fn halfBits(bits: u32) -> u32 {
  let sign = (bits >> 16u) & 0x8000u;
  let magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {
    return sign | 0x7e00u;
  }
  if (magnitude >= 0x477ff000u) {
    return sign | 0x7c00u;
  }
  if (magnitude >= 0x38800000u) {
    let shifted = magnitude - 0x38000000u;
    return sign | ((shifted + 0xfffu + ((shifted >> 13u) & 1u)) >> 13u);
  }
  if (magnitude < 0x33000000u) {
    return sign;
  }
  // Subnormal half: units of 2^-24.
  let shift = 126u - (magnitude >> 23u);
  let mantissa = (magnitude & 0x7fffffu) | 0x800000u;
  let whole = mantissa >> shift;
  let rest = mantissa & ((1u << shift) - 1u);
  let middle = 1u << (shift - 1u);
  let up = select(0u, 1u, rest > middle || (rest == middle && (whole & 1u) == 1u));
  return sign | (whole + up);
}

@compute @workgroup_size(lanes)
fn appendCache(@builtin(global_invocation_id) at: vec3<u32>) {
  let word = at.x;
  let row = at.y;
  if (word >= params.words) {
    return;
  }
  let first = select(word, 2u * word, half);
  let two = half && first + 1u < params.width;
  if (hasQueries) {
    let query = row * params.queryStride + params.queryColumn + first;
    ownQueries[row * params.width + first] = queries[query];
    if (two) {
      ownQueries[row * params.width + first + 1u] = queries[query + 1u];
    }
  }
  let slot = cursors[row].z;
  if (slot == none) {
    return;
  }
  let place = slot * params.words + word;
  let key = row * params.keyStride + params.keyColumn + first;
  let value = row * params.valueStride + params.valueColumn + first;
  if (!half) {
    keyCache[place] = bitcast<u32>(keys[key]);
    valueCache[place] = bitcast<u32>(values[value]);
    return;
  }
  var keyHalves = halfBits(bitcast<u32>(keys[key]));
  var valueHalves = halfBits(bitcast<u32>(values[value]));
  if (two) {
    keyHalves |= halfBits(bitcast<u32>(keys[key + 1u])) << 16u;
    valueHalves |= halfBits(bitcast<u32>(values[value + 1u])) << 16u;
  }
  keyCache[place] = keyHalves;
  valueCache[place] = valueHalves;
}
