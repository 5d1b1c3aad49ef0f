// destination[c, column + r] = round(source[r, c] / scale) and scale        a piece of PyTorch's Linear.weight, quantized
//
// source: (rows, inputs) row-major as it lies in the checkpoint: f32, or f16 or bf16 two in a u32
// destination: (inputs, stride) as whole numbers of BITS bits with a scale for every 32 inputs of a column. Such a group of
// all columns lies together: WORDS rows of `stride` words, then `stride` scales, two in a word. A word holds neighbouring
// inputs of one column, the first in its lowest bits; inputs past the end are 0. column, filled and stride are multiples
// of 4; columns from column + rows on up to column + filled become 0.
// refused: becomes at least `number` where a value is inf or NaN.
// One invocation makes a group of two neighbouring columns.
//
// Numerical choice: the largest size m of a group becomes -2^(BITS - 1), so that the scale is m / 2^(BITS - 1), with the
// sign opposite to that value's (the first such, where there are several); bf16, to nearest. The others are the whole
// numbers nearest to value / scale, halves away from zero, up to 2^(BITS - 1) - 1. All of it is exact, and the same on every
// driver: the scale by integers, and a quotient is only an estimate that the remainder, which f32 holds exactly, corrects.
// A group below 2^-100 becomes 0, so that nothing here or in a product is denormal.

const SOURCE = 0u; // 0 f32, 1 f16, 2 bf16
const BITS = 4u; // 8 or 4

const GROUP = 32u;
const IN_WORD = 32u / BITS;
const WORDS = GROUP / IN_WORD;
const LEAST = f32(1u << (BITS - 1u));

struct Params {
  rows: u32,
  inputs: u32,
  column: u32,
  filled: u32,
  stride: u32,
  number: u32,
}

@group(0) @binding(0) var<storage, read> source: array<u32>;
@group(0) @binding(1) var<storage, read_write> destination: array<u32>;
@group(0) @binding(2) var<storage, read_write> refused: array<atomic<u32>>;
@group(0) @binding(3) var<uniform> params: Params;

fn fromHalf(half: u32) -> u32 {
  let size = half & 0x7fffu;
  var bits = (size << 13u) + 0x38000000u;
  if (size < 0x400u) {
    bits = bitcast<u32>(f32(size) * 0x1p-24f);
  }
  if (size >= 0x7c00u) {
    bits = (size << 13u) | 0x7f800000u;
  }
  return bits | ((half & 0x8000u) << 16u);
}

/// The bits of an element as f32, from the word that it lies in.
fn fromWord(element: u32, word: u32) -> u32 {
  if (SOURCE == 0u) {
    return word;
  }
  let half = (word >> (element % 2u * 16u)) & 0xffffu;
  if (SOURCE == 1u) {
    return fromHalf(half);
  }
  return half << 16u;
}

/// The bits of two neighbouring elements of a row as f32; 0 past the last row or input.
fn pair(row: u32, input: u32) -> vec2<u32> {
  if (row >= params.rows || input >= params.inputs) {
    return vec2(0u);
  }
  let element = row * params.inputs + input;
  let first = select(element / 2u, element, SOURCE == 0u);
  let second = select((element + 1u) / 2u, element + 1u, SOURCE == 0u);
  let word = source[first];
  var next = word;
  if (second != first) {
    next = source[second];
  }
  let isInside = input + 1u < params.inputs;
  return vec2(fromWord(element, word), select(0u, fromWord(element + 1u, next), isInside));
}

/// The bits of the value with the largest size.
fn largest(row: u32, first: u32) -> u32 {
  var found = 0u;
  for (var i = 0u; i < GROUP; i += 2u) {
    let both = pair(row, first + i);
    for (var j = 0u; j < 2u; j++) {
      if ((both[j] & 0x7fffffffu) > (found & 0x7fffffffu)) {
        found = both[j];
      }
    }
  }
  if ((found & 0x7fffffffu) >= 0x7f800000u) {
    atomicMax(&refused[0], params.number);
  }
  return found;
}

/// The bf16 bits of the scale of a group with this largest value.
fn scaleOf(bits: u32) -> u32 {
  let size = bits & 0x7fffffffu;
  if (size < 0x0d800000u) {
    return 0u;
  }
  let scale = size - ((BITS - 1u) << 23u);
  let rounded = (scale + 0x7fffu + ((scale >> 16u) & 1u)) >> 16u;
  return rounded | ((~bits >> 16u) & 0x8000u);
}

/// The whole number nearest to value / scale, as so many bits.
fn quantized(bits: u32, scale: f32) -> u32 {
  let size = abs(scale);
  let value = bitcast<f32>(bits & 0x7fffffffu);
  // Off by one at most.
  var whole = round(value / size);
  let remainder = value - whole * size;
  if (remainder >= 0.5 * size) {
    whole += 1.0;
  }
  if (remainder < -0.5 * size) {
    whole -= 1.0;
  }
  let isNegative = (bits >> 31u) != (bitcast<u32>(scale) >> 31u);
  let held = select(min(whole, LEAST - 1.0), -min(whole, LEAST), isNegative);
  return bitcast<u32>(i32(held)) & ((1u << BITS) - 1u);
}

/// The words of one column's group. @returns the bf16 bits of its scale
fn quantizeGroup(row: u32, group: u32, start: u32) -> u32 {
  let first = group * GROUP;
  let bits = scaleOf(largest(row, first));
  let scale = bitcast<f32>(bits << 16u);
  for (var w = 0u; w < WORDS; w++) {
    var word = 0u;
    if (bits != 0u) {
      for (var i = 0u; i < IN_WORD; i += 2u) {
        let both = pair(row, first + w * IN_WORD + i);
        word |= (quantized(both.x, scale) | (quantized(both.y, scale) << BITS)) << (i * BITS);
      }
    }
    destination[start + w * params.stride + params.column + row] = word;
  }
  return bits;
}

@compute @workgroup_size(8, 8)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let row = 2u * id.x;
  let group = id.y;
  if (row >= params.filled || group * GROUP >= params.inputs) {
    return;
  }
  let start = group * params.stride * (2u * WORDS + 1u) / 2u;
  let low = quantizeGroup(row, group, start);
  let high = quantizeGroup(row + 1u, group, start);
  destination[start + WORDS * params.stride + (params.column + row) / 2u] = low | (high << 16u);
}
