// y[r, :] = x[r, :] / max(|x[r, :]|, LEAST)        |row| = sqrt(sum_c row[c]^2)
//
// x, y: (rows, width) f32, row-major. One workgroup per row: each invocation strides across the row, then the workgroup
// adds up in shared memory.
//
// Numerical choice: the row is divided by its largest size before it is squared, so that no square overflows or is lost;
// LEAST is what torch.nn.functional.normalize has, and keeps a row of zeros what it is.

const WORKGROUP = 64u;
const LEAST = 1e-12f;

struct Params {
  rows: u32,
  width: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<uniform> params: Params;

var<workgroup> parts: array<f32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = id.x + id.y * 65535u;
  if (row >= params.rows) {
    return;
  }
  let start = row * params.width;

  var largest = 0.0;
  for (var c = lane; c < params.width; c += WORKGROUP) {
    largest = max(largest, abs(x[start + c]));
  }
  parts[lane] = largest;
  workgroupBarrier();
  for (var other = 0u; other < WORKGROUP; other++) {
    largest = max(largest, parts[other]);
  }
  workgroupBarrier();
  let unit = max(largest, LEAST);

  var sum = 0.0;
  for (var c = lane; c < params.width; c += WORKGROUP) {
    let part = x[start + c] / unit;
    sum = fma(part, part, sum);
  }
  parts[lane] = sum;
  workgroupBarrier();
  var total = 0.0;
  for (var other = 0u; other < WORKGROUP; other++) {
    total += parts[other];
  }

  let size = max(sqrt(total), LEAST / unit);
  for (var c = lane; c < params.width; c += WORKGROUP) {
    y[start + c] = x[start + c] / unit / size;
  }
}
