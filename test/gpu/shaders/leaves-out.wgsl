// Leaves the last element out.
@group(0) @binding(0) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(8)
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < 4u) { y[id.x] = 1.0; }
}
