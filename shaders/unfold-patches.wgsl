// y[b * patches + i * across + j, (c * size + dy) * size + dx] = pixels[b, c, i * size + dy, j * size + dx]
//
// pixels: (batch, channels, height, width) f32
// y: (batch * patches, channels * size * size) f32, patches = down * across, down = floor(height / size),
// across = floor(width / size). The columns stand in the order of a PyTorch convolution weight, so that a convolution
// whose stride is its kernel becomes a matmul. One invocation copies one element of y; nothing is computed.

const WORKGROUP = 64u;

struct Params {
  count: u32,
  channels: u32,
  height: u32,
  width: u32,
  size: u32,
}

@group(0) @binding(0) var<storage, read> pixels: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<uniform> params: Params;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) lane: u32) {
  let element = (id.x + id.y * 65535u) * WORKGROUP + lane;
  if (element >= params.count) {
    return;
  }
  let size = params.size;
  let dx = element % size;
  let dy = element / size % size;
  let channel = element / (size * size) % params.channels;
  let place = element / (size * size * params.channels);
  let across = params.width / size;
  let down = params.height / size;
  let column = place % across * size + dx;
  let row = place / across % down * size + dy;
  let item = place / (across * down);
  y[element] = pixels[((item * params.channels + channel) * params.height + row) * params.width + column];
}
