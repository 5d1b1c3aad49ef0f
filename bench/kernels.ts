// Kernels and whole layers at the sizes of BLIP-2 with ViT-g and OPT-2.7B, beside onnxruntime-node on the same adapter, and
// how far each is from what the adapter does at most.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import type { BenchOptions, BenchRow } from "../src/cli/bench.ts";
import { UsageError } from "../src/cli/errors.ts";
import { tell } from "../src/cli/output.ts";
import { adapterLine } from "../src/gpu/adapter.ts";
import { type Gpu, openGpu } from "../src/gpu/device.ts";
import { measureEncodeCost } from "../src/gpu/encode-cost.ts";
import { median } from "../src/gpu/median.ts";
import { packageRoot } from "../src/gpu/package-root.ts";
import { RowScheduler } from "../src/gpu/scheduler.ts";
import { toPixels } from "../src/image/pixels.ts";
import { cacheFolder } from "../src/jobs/roots.ts";
import { loadModel } from "../src/models/load-model.ts";
import { defaultGeneration } from "../src/stages.ts";
import { comparisons, opt27 } from "./kernels/comparisons.ts";
import { type MachineLimits, measureLimits } from "./kernels/limits.ts";
import { compare, inTurns, type Rounds } from "./kernels/measure.ts";
import { installedOnnxRuntime, onnxRuntimeVersion } from "./kernels/onnxruntime.ts";
import { openSide, optLayerForward, optStepForward, Weights } from "./kernels/ours.ts";
import { Peer } from "./kernels/peer.ts";
import { optShape } from "./kernels/shapes.ts";

const usualRounds: Rounds = { warmUp: 2, timed: 10 };
/** Rows of the larger batches of decoding. */
const batches = [4, 16] as const;
/** Blocks of OPT-2.7B. */
const layers = 32;
/** The id that OPT's texts begin with. */
const optStart = 2;

/** A figure that is not a comparison with the peer. */
interface OwnFigure {
  readonly name: string;
  measure(): Promise<Omit<BenchRow, "name">>;
}

export async function rows({ rowsWith = "", about = () => {} }: BenchOptions): Promise<readonly BenchRow[]> {
  const gpu = await openGpu({ nap: true, validation: false });
  const wanted = ({ name }: { readonly name: string }) => name.includes(rowsWith);
  const compared = comparisons(gpu).filter(wanted);
  const own = ownFigures(gpu).filter(wanted);
  if (compared.length + own.length === 0) {
    const names = [...comparisons(gpu), ...ownFigures(gpu)].map(({ name }) => name);
    gpu.close();
    throw new UsageError(`--rows-with: expected a part of ${names.join("; ")}; got ${JSON.stringify(rowsWith)}`);
  }
  const folder = compared.length > 0 ? await installedOnnxRuntime(cacheFolder(), tell) : null;
  const peer = folder === null ? null : new Peer(folder);
  try {
    tell(`bench: kernels: ${adapterLine(gpu.report)}`);
    const limits = await measureLimits(gpu);
    about({ ...aboutRun(gpu, peer !== null), limits });
    tellLimits(limits);
    const all: BenchRow[] = [];
    const keep = (row: BenchRow) => {
      all.push(row);
      const beside = row.peer === null ? "" : `, peer ${row.peer.toPrecision(4)}`;
      tell(`bench: ${row.name}: ${row.ours.toPrecision(4)} ${row.unit}${beside}`);
    };
    for (const each of compared) keep(await compare(each, { peer, limits, rounds: usualRounds, tell }));
    for (const each of own) keep({ name: each.name, ...(await each.measure()) });
    return all;
  } finally {
    peer?.close();
    gpu.close();
  }
}

/** What the figures hold for. */
function aboutRun(gpu: Gpu, withPeer: boolean): Readonly<Record<string, unknown>> {
  const versionIn = (file: string) => JSON.parse(readFileSync(file, "utf8")).version as string;
  const webgpu = createRequire(import.meta.url).resolve("webgpu/package.json");
  return {
    adapter: adapterLine(gpu.report),
    driver: gpu.report.description,
    versions: {
      blipfleet: versionIn(join(packageRoot, "package.json")),
      node: process.versions.node,
      webgpu: versionIn(webgpu),
      "onnxruntime-node": withPeer ? onnxRuntimeVersion : null,
    },
    rounds: usualRounds,
  };
}

function tellLimits({ flopsPerSecond, bytesPerSecond }: MachineLimits): void {
  const [flops, bytes] = [flopsPerSecond, bytesPerSecond].map((each) => (each / 1e9).toPrecision(3));
  tell(`bench: kernels: at most ${flops} GFLOP/s of fma and ${bytes} GB/s of a copy on this driver`);
}

function ownFigures(gpu: Gpu): OwnFigure[] {
  return [
    { name: "replayed step against freshly encoded, host time per dispatch", measure: () => encoded(gpu) },
    ...batches.map((batch) => ({
      name: `layer opt-2.7b f16 batch ${batch} against batch 1`,
      measure: () => batched(gpu, batch),
    })),
    { name: "tiny blip-2 end to end, image to caption", measure: () => tinyModel(gpu) },
  ];
}

/** A decoding step of OPT-2.7B's 32 blocks, but narrow: what the host does for a dispatch does not depend on widths. */
async function encoded(gpu: Gpu): Promise<Omit<BenchRow, "name">> {
  const weights = new Weights(gpu);
  const forward = await optStepForward(optShape(64, 4, 128, 16), layers)(weights);
  const x = await weights.tensor("x", [1, 64], { seed: 1, scale: 1 });
  const list = await gpu.record("step", (k) => forward(k, x));
  const { replayed, fresh } = await measureEncodeCost(gpu, list, 50);
  list.destroy();
  weights.free();
  return { ours: replayed, peer: fresh, unit: "µs", ratio: fresh / replayed };
}

/** Tokens of one block: sequences that share a step against one alone. */
async function batched(gpu: Gpu, batch: number): Promise<Omit<BenchRow, "name">> {
  const open = (count: number) => openSide(gpu, "decode", [count, opt27.width], optLayerForward(opt27, count));
  const [one, many] = [await open(1), await open(batch)];
  const medians = await inTurns([one, many], usualRounds);
  const rate = (side: typeof one, tokens: number) => (1000 * tokens) / (medians.get(side) ?? Number.NaN);
  const [ours, alone] = [rate(many, batch), rate(one, 1)];
  for (const side of [one, many]) await side.close();
  return { ours, peer: alone, unit: "tokens/s", ratio: ours / alone };
}

/** Pixels to ids of the smallest fixture: nearly all of it is calls and small dispatches. */
async function tinyModel(gpu: Gpu): Promise<Omit<BenchRow, "name">> {
  const fixtures = join(packageRoot, "test", "fixtures");
  const started = performance.now();
  const model = await loadModel(gpu, join(fixtures, "models", "blip2-opt-tiny"), { dtype: "f32" });
  const { card, programs } = model;
  const { encodeAndQuery, generate } = programs;
  if (!encodeAndQuery || !generate) throw new Error("bench: expected a model that captions, got none");
  const pixels = await toPixels(readFileSync(join(fixtures, "images", "clear.png")), card.image);
  const scheduler = new RowScheduler();
  const generation = { ...defaultGeneration, minNewTokens: 20, maxNewTokens: 20 };
  const times: number[] = [];
  for (let round = -usualRounds.warmUp; round < usualRounds.timed; round++) {
    const before = round === -usualRounds.warmUp ? started : performance.now();
    const prompt = await scheduler.run(encodeAndQuery, pixels);
    await scheduler.run(generate, { prompt, textIds: [optStart], generation });
    times.push(performance.now() - before);
  }
  await scheduler.close("drain");
  model.release();
  const [first = Number.NaN] = times;
  return { ours: median(times.slice(usualRounds.warmUp)), peer: null, unit: "ms", ratio: null, first };
}
