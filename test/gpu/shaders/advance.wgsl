// state[0] += 1, out[state[0]] = state[0]: a step that counts itself.
@group(0) @binding(0) var<storage, read_write> state: array<u32>;
@group(0) @binding(1) var<storage, read_write> seen: array<u32>;

@compute @workgroup_size(1)
fn main() {
  seen[state[0]] = state[0] + 100u;
  state[0] += 1u;
}
