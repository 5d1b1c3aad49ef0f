// y[r, c] = (x[r, c] - mean_r) / sqrt(variance_r + eps) * gain[c] + bias[c]
//
// x, y: (rows, width)   gain, bias: (width); all f32, row-major. The variance divides by width.
// One workgroup per row: each invocation strides across the row, then the workgroup adds up in shared memory.
//
// Numerical choice: two passes, because E[x^2] - E[x]^2 cancels when |mean| is much larger than the spread. The second
// pass also sums the differences themselves: what is left of them is the rounding error of the mean, and is taken out,
// so that rows with a mean of thousands keep their digits. eps stands inside the root and is added in f32 as it is.

const WORKGROUP = 64u;

struct Params {
  rows: u32,
  width: u32,
  eps: f32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> gain: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

var<workgroup> parts: array<vec2f, WORKGROUP>;

/// The sum of every invocation's `part`, the same in all of them.
fn addUp(part: vec2f, lane: u32) -> vec2f {
  parts[lane] = part;
  workgroupBarrier();
  for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
    if (lane < half) {
      parts[lane] += parts[lane + half];
    }
    workgroupBarrier();
  }
  let sum = parts[0];
  workgroupBarrier();
  return sum;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = id.x + id.y * 65535u;
  if (row >= params.rows) {
    return;
  }
  let start = row * params.width;
  let count = f32(params.width);

  var sum = 0.0;
  for (var c = lane; c < params.width; c += WORKGROUP) {
    sum += x[start + c];
  }
  let mean = addUp(vec2f(sum, 0.0), lane).x / count;

  var moments = vec2f();
  for (var c = lane; c < params.width; c += WORKGROUP) {
    let difference = x[start + c] - mean;
    moments += vec2f(difference, difference * difference);
  }
  moments = addUp(moments, lane) / count;
  let variance = max(moments.y - moments.x * moments.x, 0.0);
  let scale = 1.0 / sqrt(variance + params.eps);

  for (var c = lane; c < params.width; c += WORKGROUP) {
    y[start + c] = (x[start + c] - mean - moments.x) * scale * gain[c] + bias[c];
  }
}
