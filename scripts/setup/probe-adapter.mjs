// Child process of set-up: does a WebGPU adapter exist under the variables given, and does it compute?
// Prints one JSON line {vendor, device, description, software, matrices}; status 1 with a sentence on stderr otherwise.

import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
const { create, globals } = await import(require.resolve("webgpu"));
Object.assign(globalThis, globals);
// stays referenced: Dawn crashes once the object that create() returned is collected
globalThis.gpuAnchor = create(["enable-dawn-features=allow_unsafe_apis,vulkan_enable_f16_on_nvidia"]);

/** 100 is no multiple of the workgroup size: lanes past the end must write nothing. */
const count = 100;
const shader = `
@group(0) @binding(0) var<storage, read> input: array<u32>;
@group(0) @binding(1) var<storage, read_write> output: array<u32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= arrayLength(&input)) { return; }
  output[id.x] = input[id.x] * input[id.x] + id.x;
}`;

async function probe() {
  const adapter = await globalThis.gpuAnchor.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter || adapter.info.vendor === "") throw new Error("no adapter");
  const device = await adapter.requestDevice();
  const size = count * 4;
  const { STORAGE, COPY_SRC, COPY_DST, MAP_READ } = GPUBufferUsage;
  const input = device.createBuffer({ size, usage: STORAGE | COPY_DST });
  const output = device.createBuffer({ size, usage: STORAGE | COPY_SRC });
  const back = device.createBuffer({ size, usage: MAP_READ | COPY_DST });
  device.queue.writeBuffer(
    input,
    0,
    Uint32Array.from({ length: count }, (_, i) => 3 * i + 1),
  );
  const pipeline = device.createComputePipeline({
    layout: "auto",
    compute: { module: device.createShaderModule({ code: shader }) },
  });
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  const entries = [input, output].map((buffer, binding) => ({ binding, resource: { buffer } }));
  pass.setBindGroup(0, device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }));
  pass.dispatchWorkgroups(Math.ceil(count / 64));
  pass.end();
  encoder.copyBufferToBuffer(output, 0, back, 0, size);
  device.queue.submit([encoder.finish()]);
  await back.mapAsync(GPUMapMode.READ);
  new Uint32Array(back.getMappedRange()).forEach((value, i) => {
    const expected = (3 * i + 1) ** 2 + i;
    if (value !== expected) throw new Error(`expected ${expected} at ${i} of a test shader, got ${value}`);
  });
  const { vendor, device: name, description, isFallbackAdapter } = adapter.info;
  const matrices = adapter.features.has("chromium-experimental-subgroup-matrix") && adapter.features.has("shader-f16");
  return { vendor, device: name, description, software: isFallbackAdapter, matrices };
}

try {
  process.stdout.write(`${JSON.stringify(await probe())}\n`);
  process.exit(0);
} catch (error) {
  process.stderr.write(`${error.message}\n`);
  process.exit(1);
}
