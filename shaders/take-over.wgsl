// y = x as f32, exactly
//
// x: count elements f16, two in a u32 with the low half first   y: count elements f32. One invocation writes one
// element. By integer arithmetic, so that denormals, inf and NaN pass on every driver.

const WORKGROUP = 64u;

struct Params {
  count: u32,
}

@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
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

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) lane: u32) {
  let element = (id.x + id.y * 65535u) * WORKGROUP + lane;
  if (element < params.count) {
    y[element] = fromHalf((x[element / 2u] >> (element % 2u * 16u)) & 0xffffu);
  }
}
