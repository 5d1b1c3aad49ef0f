// destination[first + i] = source[i] as f32        for vectors and tables, which keep their layout
//
// source: count elements as they lie in the checkpoint: f32, or f16 or bf16 two in a u32   destination: f32.
// One invocation writes one element, exactly: by integer arithmetic, so that denormals, inf and NaN pass.

const SOURCE = 0u; // 0 f32, 1 f16, 2 bf16
const WORKGROUP = 64u;

struct Params {
  count: u32,
  first: u32,
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

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) lane: u32) {
  let element = (id.x + id.y * 65535u) * WORKGROUP + lane;
  if (element >= params.count) {
    return;
  }
  if (SOURCE == 0u) {
    destination[params.first + element] = source[element];
    return;
  }
  let half = (source[element / 2u] >> (element % 2u * 16u)) & 0xffffu;
  destination[params.first + element] = select(half << 16u, fromHalf(half), SOURCE == 1u);
}
