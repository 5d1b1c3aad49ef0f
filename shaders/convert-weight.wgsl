// destination[c, column + r] = source[r, c]        a piece of PyTorch's Linear.weight becomes columns of ours
//
// source: (rows, inputs) row-major as it lies in the checkpoint: f32, or f16 or bf16 two in a u32
// destination: (inputs, stride) f32, or with F16 two halves in a u32 along the row; column, filled and stride are
// multiples of 4.
// Columns from column + rows on up to column + filled become 0. One invocation writes four neighbouring columns of two
// rows, so that a word of two elements is read once; a workgroup covers 32 columns of 16 rows, so that reads and writes
// both stay close together.
//
// Numerical choice: f16 and bf16 become f32 exactly; f32 and bf16 become f16 to nearest, ties to even, inf from 65520
// on; f16 to f16 copies bits. Integer arithmetic throughout, so that denormals, inf and NaN pass on every driver.

const SOURCE = 0u; // 0 f32, 1 f16, 2 bf16
const F16 = false;

struct Params {
  rows: u32,
  inputs: u32,
  column: u32,
  filled: u32,
  stride: u32,
}

@group(0) @binding(0) var<storage, read> source: array<u32>;
@group(0) @binding(1) var<storage, read_write> destination: array<u32>;
@group(0) @binding(2) var<uniform> params: Params;

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

fn toHalf(bits: u32) -> u32 {
  let size = bits & 0x7fffffffu;
  let sign = (bits >> 16u) & 0x8000u;
  if (size > 0x7f800000u) {
    return sign | 0x7e00u;
  }
  if (size >= 0x477ff000u) {
    return sign | 0x7c00u;
  }
  if (size < 0x38800000u) {
    // Below 2^-14 halves are whole multiples of 2^-24.
    return sign | u32(round(bitcast<f32>(size) * 0x1p+24f));
  }
  return sign | ((size + 0xfffu + ((size >> 13u) & 1u) - 0x38000000u) >> 13u);
}

/// The bits of one element in the destination's type, from the word that it lies in.
fn converted(element: u32, word: u32) -> u32 {
  if (SOURCE == 0u) {
    return select(word, toHalf(word), F16);
  }
  let half = (word >> (element % 2u * 16u)) & 0xffffu;
  if (SOURCE == 1u) {
    return select(fromHalf(half), half, F16);
  }
  return select(half << 16u, toHalf(half << 16u), F16);
}

/// Two neighbouring elements of a row; 0 past the last row.
fn pair(row: u32, input: u32) -> vec2<u32> {
  if (row >= params.rows) {
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
  return vec2(converted(element, word), converted(element + 1u, next));
}

@compute @workgroup_size(8, 8)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let row = 4u * id.x;
  let input = 2u * id.y;
  if (row >= params.filled || input >= params.inputs) {
    return;
  }
  let pairs = array(pair(row, input), pair(row + 1u, input), pair(row + 2u, input), pair(row + 3u, input));
  let inputs = min(params.inputs - input, 2u);
  for (var i = 0u; i < inputs; i++) {
    let at = (input + i) * params.stride + params.column + row;
    if (F16) {
      destination[at / 2u] = pairs[0][i] | (pairs[1][i] << 16u);
      destination[at / 2u + 1u] = pairs[2][i] | (pairs[3][i] << 16u);
    } else {
      destination[at] = pairs[0][i];
      destination[at + 1u] = pairs[1][i];
      destination[at + 2u] = pairs[2][i];
      destination[at + 3u] = pairs[3][i];
    }
  }
}
