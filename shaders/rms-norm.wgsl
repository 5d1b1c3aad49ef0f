// y[r, c] = x[r, c] / sqrt(mean_c(x[r, c]^2) + eps) * gain[c] * factor
//
// x, y: (rows, width)   gain: (width); all f32, row-major. Unlike in layer-norm no mean is taken out and no bias added.
// One workgroup per row: each invocation strides across the row, then the workgroup adds up in shared memory.
//
// Numerical choice: squares are added up in f32, in one pass, because nothing cancels. eps stands inside the root.

const WORKGROUP = 64u;

struct Params {
  rows: u32,
  width: u32,
  eps: f32,
  factor: f32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> gain: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

var<workgroup> parts: array<f32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = id.x + id.y * 65535u;
  if (row >= params.rows) {
    return;
  }
  let start = row * params.width;

  var squares = 0.0;
  for (var c = lane; c < params.width; c += WORKGROUP) {
    squares = fma(x[start + c], x[start + c], squares);
  }
  parts[lane] = squares;
  workgroupBarrier();
  for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
    if (lane < half) {
      parts[lane] += parts[lane + half];
    }
    workgroupBarrier();
  }
  let scale = params.factor / sqrt(parts[0] / f32(params.width) + params.eps);

  for (var c = lane; c < params.width; c += WORKGROUP) {
    y[start + c] = x[start + c] * scale * gain[c];
  }
}
