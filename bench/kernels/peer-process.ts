// The peer's own process: onnxruntime-node, told by messages what to load and when to run. Two threads of one process that
// load Dawn abort it, and the peer loads one of its own.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { type OnnxGraph, onnxModel, sampleName } from "./onnx-model.ts";
import { randomBytesOf } from "./random-values.ts";

export type Provider = "webgpu" | "cpu";

export type PeerRequest =
  | { readonly load: OnnxGraph; readonly provider: Provider }
  | { readonly run: number }
  | { readonly close: number };

/** One to each request, in order; times in milliseconds. */
export type PeerAnswer =
  | { readonly loaded: number; readonly first: number; readonly sample: readonly number[] }
  | { readonly took: number }
  | { readonly closed: number }
  | { readonly failed: string };

/** As much of onnxruntime-node as is used here; it is not installed when this is compiled. */
interface OnnxRuntime {
  readonly InferenceSession: {
    create(model: Uint8Array, options: Readonly<Record<string, unknown>>): Promise<Session>;
  };
  readonly Tensor: new (type: string, data: Float32Array | Uint16Array, shape: readonly number[]) => unknown;
}

interface Session {
  run(
    feeds: Readonly<Record<string, unknown>>,
  ): Promise<Readonly<Record<string, { readonly data: ArrayLike<number> }>>>;
  release(): Promise<void>;
}

interface Loaded {
  readonly session: Session;
  run(): Promise<{ readonly took: number; readonly sample: ArrayLike<number> }>;
}

/** Only what runs on the provider counts: an operator that falls back to the CPU is refused. */
const onProviderOnly = { session: { disable_cpu_ep_fallback: "1" } };

const providers: Readonly<Record<Provider, Readonly<Record<string, unknown>>>> = {
  // Its checks of every call are off, as ours are.
  webgpu: { executionProviders: [{ name: "webgpu", validationMode: "disabled" }], extra: onProviderOnly },
  cpu: { executionProviders: ["cpu"] },
};

const loaded = new Map<number, Loaded>();
let count = 0;

async function load(runtime: OnnxRuntime, graph: OnnxGraph, provider: Provider): Promise<PeerAnswer> {
  const options = { ...providers[provider], graphOptimizationLevel: "all", logSeverityLevel: 3 };
  const session = await runtime.InferenceSession.create(onnxModel(graph), options);
  const { name, shape, ...values } = graph.input;
  const bytes = randomBytesOf(
    graph.type,
    shape.reduce((product, size) => product * size, 1),
    values,
  ).slice();
  const half = graph.type === "f16";
  const data = half ? new Uint16Array(bytes.buffer) : new Float32Array(bytes.buffer);
  const feeds = { [name]: new runtime.Tensor(half ? "float16" : "float32", data, shape) };
  const run = async () => {
    const started = performance.now();
    const { [sampleName]: sample } = await session.run(feeds);
    return { took: performance.now() - started, sample: sample?.data ?? [] };
  };
  const { took: first, sample } = await run();
  const id = count++;
  loaded.set(id, { session, run });
  return { loaded: id, first, sample: Array.from(sample, half ? fromHalf : Number) };
}

/** From its bits; a runtime with Float16Array gives values already. */
function fromHalf(bits: number): number {
  if (!Number.isInteger(bits) || bits < 0 || bits > 0xffff) return bits;
  const sign = bits & 0x8000 ? -1 : 1;
  const [exponent, fraction] = [(bits >> 10) & 31, bits & 1023];
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1024 + fraction) * 2 ** (exponent - 25);
}

async function answer(runtime: OnnxRuntime, request: PeerRequest): Promise<PeerAnswer> {
  try {
    if ("load" in request) return await load(runtime, request.load, request.provider);
    const id = "run" in request ? request.run : request.close;
    const model = loaded.get(id);
    if (model === undefined) throw new Error(`expected a model that was loaded, got ${id}`);
    if ("run" in request) return { took: (await model.run()).took };
    loaded.delete(id);
    await model.session.release();
    return { closed: id };
  } catch (error) {
    return { failed: error instanceof Error ? error.message : String(error) };
  }
}

const [folder = ""] = process.argv.slice(2);
const runtime: OnnxRuntime = createRequire(pathToFileURL(`${folder}/`))("onnxruntime-node");
process.on("message", (request: PeerRequest) => {
  void answer(runtime, request).then((answered) => process.send?.(answered));
});
// The library may crash while it takes itself down.
process.on("disconnect", () => process.kill(process.pid, "SIGKILL"));
