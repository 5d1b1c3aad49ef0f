// The most fused multiply-adds that an adapter does: each invocation carries CHAINS independent chains of f32 through
// `turns` turns, and touches no memory meanwhile. Their sum is stored, so that nothing can be left out.

override WORKGROUP: u32 = 8u;
const CHAINS = 24u;

struct Params {
  turns: u32,
  factor: f32,
  addend: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> sums: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3u) {
  var chains: array<f32, CHAINS>;
  for (var c = 0u; c < CHAINS; c++) {
    chains[c] = f32(id.x + c);
  }
  for (var turn = 0u; turn < params.turns; turn++) {
    for (var c = 0u; c < CHAINS; c++) {
      chains[c] = fma(chains[c], params.factor, params.addend);
    }
  }
  var sum = 0.0;
  for (var c = 0u; c < CHAINS; c++) {
    sum += chains[c];
  }
  sums[id.x] = sum;
}
