// How fast an adapter moves memory: one vec4 each from one buffer to another.

override WORKGROUP: u32 = 64u;

@group(0) @binding(0) var<storage, read> source: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> copy: array<vec4f>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = (group.x + group.y * 65535u) * WORKGROUP + lane;
  if (i < arrayLength(&copy)) {
    copy[i] = source[i];
  }
}
