// y = x in the type of a hand-over between stages: f16, two halves in a u32 with the low half first, or f32
//
// x: count elements f32   y: ceil(count / 2) u32 with F16, else count. One invocation writes one u32. The half beside
// an odd last element is 0.
//
// Numerical choice: to nearest, ties to even, inf from 65520 on, by integer arithmetic, because drivers differ in how
// pack2x16float rounds, overflows and treats denormals. A NaN stays a NaN.

const F16 = true;
const WORKGROUP = 64u;

struct Params {
  count: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@group(0) @binding(2) var<uniform> params: Params;

fn toHalf(value: f32) -> u32 {
  let bits = bitcast<u32>(value);
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

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) lane: u32) {
  let word = (id.x + id.y * 65535u) * WORKGROUP + lane;
  if (F16) {
    if (2u * word < params.count) {
      var high = 0u;
      if (2u * word + 1u < params.count) {
        high = toHalf(x[2u * word + 1u]);
      }
      y[word] = toHalf(x[2u * word]) | (high << 16u);
    }
  } else if (word < params.count) {
    y[word] = bitcast<u32>(x[word]);
  }
}
