// A checkpoint in the shapes of BLIP-2 with OPT-2.7b, 7.5 GB in f16, from its files to a caption: how fast it loads, how much
// memory that takes, and what an image and a token cost. Weights are random, so that the caption means nothing.

import { readFile, stat, statfs } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { BenchOptions, BenchRow } from "../src/cli/bench.ts";
import { UsageError } from "../src/cli/errors.ts";
import { adapterLine } from "../src/gpu/adapter.ts";
import { packageRoot } from "../src/gpu/package-root.ts";
import { type Activation, defaultGeneration, type Stages } from "../src/stages.ts";
import { openCheckpoint } from "../src/weights/checkpoint.ts";
import { type OpenedStages, openStagesGroup, type StagesGroup } from "../src/workers/stages.ts";
import { writeRandomCheckpoint } from "./random-checkpoint.ts";
import { inTemporaryFolder } from "./temporary-folder.ts";
import { trueShapes } from "./true-shapes.ts";

const shapes = "blip2-opt-2.7b";
/** Bytes of its files, and some for a tokenizer. */
const diskBytes = 7.6e9;
const image = join(packageRoot, "examples", "images", "scene-24.jpg");
/** Tokens of the timed caption; ends are random, so that they are kept away. */
const newTokens = 12;

/** @param options `checkpoint`: one that is there already, of any BLIP-2 with OPT */
export async function rows({ checkpoint, about }: BenchOptions): Promise<readonly BenchRow[]> {
  return inTemporaryFolder("blipfleet-full-size-", async (folder) => {
    const ref = checkpoint ?? (await write(join(folder, "model")));
    const files = await weightFileBytes(ref);
    // Hashes of files are remembered in this folder, and it is empty: the first load is that of a new checkpoint.
    const cache = join(folder, "cache");
    const { first, run, adapter, weightBytes, peakBytes } = await measure(ref, cache);
    const again = await loadOnly(ref, cache);
    about?.({ adapter, weightFileBytes: files, weightBytes, caption: run.text });
    return [
      figure("full-size load, digest not known", first.seconds, "s"),
      figure("full-size load rate, digest not known", files / first.seconds / 1e9, "GB/s"),
      figure("full-size processor time of that load", first.processor, "s"),
      figure("full-size load, digest remembered", again.seconds, "s"),
      figure("full-size load rate, digest remembered", files / again.seconds / 1e9, "GB/s"),
      figure("full-size processor time of that load", again.processor, "s"),
      {
        name: "full-size most host memory; beside it: weights",
        ours: peakBytes / 1e9,
        peer: weightBytes / 1e9,
        unit: "GB",
        ratio: peakBytes / weightBytes,
      },
      figure("full-size from start to first caption, digest not known", run.sinceStart, "s"),
      figure("full-size cold start: first image beyond a second one", run.cold - run.encode - run.query, "s"),
      figure("full-size encode", run.encode, "s/image"),
      figure("full-size query", run.query, "s/image"),
      figure("full-size decode", run.perToken, "s/token"),
    ];
  });
}

function figure(name: string, ours: number, unit: string): BenchRow {
  return { name, ours, peer: null, unit, ratio: null };
}

/** @throws UsageError where the temporary folder has no room */
async function write(folder: string): Promise<string> {
  const { bavail, bsize } = await statfs(tmpdir());
  if (bavail * bsize < diskBytes) {
    throw new UsageError(
      `bench: expected ${diskBytes / 1e9} GB free in ${tmpdir()}, got ${(bavail * bsize) / 1e9} GB; set TMPDIR, or ` +
        "name a checkpoint that is there with --checkpoint",
    );
  }
  process.stderr.write(`bench: full-size: writing ${shapes} to ${folder}\n`);
  return writeRandomCheckpoint(folder, trueShapes[shapes]);
}

async function weightFileBytes(ref: string): Promise<number> {
  const { folder, weightFiles } = await openCheckpoint(ref);
  const sizes = await Promise.all(weightFiles.map(async (name) => (await stat(join(folder, name))).size));
  return sizes.reduce((sum, size) => sum + size, 0);
}

/** Of a load: seconds, and those of all cores together. */
interface Load {
  readonly seconds: number;
  readonly processor: number;
}

async function load(group: StagesGroup, ref: string): Promise<{ readonly stages: OpenedStages; readonly load: Load }> {
  const before = process.cpuUsage();
  const clock = stopwatch();
  const stages = await group.open({ ref, dtype: "f16" });
  const { user, system } = process.cpuUsage(before);
  const load = { seconds: clock(), processor: (user + system) / 1e6 };
  said("loaded", load.seconds);
  return { stages, load };
}

async function loadOnly(ref: string, cacheFolder: string): Promise<Load> {
  const group = await openStagesGroup({ cacheFolder });
  try {
    return (await load(group, ref)).load;
  } finally {
    await group.close();
  }
}

/** Load a checkpoint, caption an image, encode it again, and close everything. */
async function measure(ref: string, cacheFolder: string) {
  const sinceStart = stopwatch();
  const group = await openStagesGroup({ cacheFolder });
  try {
    const { stages, load: first } = await load(group, ref);
    const cold = await promptOf(stages);
    const { perToken, text } = await textOf(stages, cold.prompt);
    const caption = sinceStart();
    said("captioned", caption);
    const warm = await promptOf(stages);
    return {
      first,
      run: {
        ...{ sinceStart: caption, cold: cold.encode + cold.query, text, perToken },
        ...{ encode: warm.encode, query: warm.query },
      },
      adapter: adapterLine(group.report),
      weightBytes: Object.values(stages.memory).reduce((sum, bytes) => sum + bytes, 0),
      peakBytes: process.resourceUsage().maxRSS * 1024,
    };
  } finally {
    await group.close();
  }
}

/** @returns seconds since it was made */
function stopwatch(): () => number {
  const started = performance.now();
  return () => (performance.now() - started) / 1000;
}

function said(what: string, seconds: number): void {
  process.stderr.write(`bench: full-size: ${what}: ${seconds.toFixed(2)} s\n`);
}

async function promptOf(stages: Stages) {
  const pixels = await stages.toPixels(await readFile(image));
  const ofEncode = stopwatch();
  const features = await stages.encode(pixels);
  const encode = ofEncode();
  said("encode", encode);
  const ofQuery = stopwatch();
  const prompt = await stages.query(features);
  const query = ofQuery();
  said("query", query);
  return { prompt, encode, query };
}

/** The time of a token is that of those behind the first ones that are told. */
async function textOf(stages: Stages, prompt: Activation) {
  const generation = { ...defaultGeneration, maxNewTokens: newTokens, minNewTokens: newTokens };
  const clock = stopwatch();
  let told: { readonly count: number; readonly at: number } | null = null;
  const onIds = (ids: readonly number[]) => {
    told ??= { count: ids.length, at: clock() };
  };
  const ids = await stages.generate(prompt, await stages.tokenize(null), generation, { onIds });
  const seconds = clock();
  const { count, at } = told ?? { count: 0, at: 0 };
  const perToken = (seconds - at) / Math.max(1, ids.length - count);
  said("a token", perToken);
  return { perToken, text: await stages.detokenize(ids) };
}
