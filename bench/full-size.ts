// A checkpoint in the shapes of BLIP-2 with OPT-2.7b, 7.5 GB in f16, from its files to a caption: how fast it loads, how much
// memory that takes, and what an image and a token cost. Weights are random, so that the caption means nothing.

import { mkdtemp, readFile, rm, stat, statfs } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { BenchOptions, BenchRow } from "../src/cli/bench.ts";
import { UsageError } from "../src/cli/errors.ts";
import { adapterLine } from "../src/gpu/adapter.ts";
import { packageRoot } from "../src/gpu/package-root.ts";
import { defaultGeneration, type Stages } from "../src/stages.ts";
import { openCheckpoint } from "../src/weights/checkpoint.ts";
import { type OpenedStages, openStagesGroup } from "../src/workers/stages.ts";
import { writeRandomCheckpoint } from "./random-checkpoint.ts";
import { trueShapes } from "./true-shapes.ts";

const shapes = "blip2-opt-2.7b";
/** Bytes of its files, and some for a tokenizer. */
const diskBytes = 7.6e9;
const image = join(packageRoot, "examples", "images", "scene-24.jpg");
/** Tokens of the timed caption; ends are random, so that they are kept away. */
const newTokens = 12;

/** @param options `checkpoint`: one that is there already, of any BLIP-2 with OPT */
export async function rows({ checkpoint, about }: BenchOptions): Promise<readonly BenchRow[]> {
  const folder = await mkdtemp(join(tmpdir(), "blipfleet-full-size-"));
  try {
    const ref = checkpoint ?? (await write(join(folder, "model")));
    const files = await weightFileBytes(ref);
    // A self-test that was passed is remembered, hashes of files are not: the first load is that of a new checkpoint.
    const first = await measure(ref, join(folder, "cache"));
    const again = await measure(ref, join(folder, "cache"));
    about?.({ adapter: first.adapter, weightFileBytes: files, weightBytes: first.weightBytes, caption: first.caption });
    return [
      figure("full-size load, digest not known", first.loadSeconds, "s"),
      figure("full-size load rate, digest not known", files / first.loadSeconds / 1e9, "GB/s"),
      figure("full-size processor time of that load", first.loadProcessor, "s"),
      figure("full-size load, digest remembered", again.loadSeconds, "s"),
      figure("full-size load rate, digest remembered", files / again.loadSeconds / 1e9, "GB/s"),
      figure("full-size processor time of that load", again.loadProcessor, "s"),
      {
        name: "full-size most host memory; beside it: weights",
        ours: first.peakBytes / 1e9,
        peer: first.weightBytes / 1e9,
        unit: "GB",
        ratio: first.peakBytes / first.weightBytes,
      },
      figure("full-size from start to first caption, digest remembered", again.firstCaption, "s"),
      figure("full-size cold start: first caption beyond a warm one", again.firstRun - again.warmRun, "s"),
      figure("full-size encode", again.encode, "s/image"),
      figure("full-size query", again.query, "s/image"),
      figure("full-size decode", again.perToken, "s/token"),
    ];
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
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

interface Measured {
  readonly adapter: string;
  /** On the adapter. */
  readonly weightBytes: number;
  /** Of this process at most, until now. */
  readonly peakBytes: number;
  /** Seconds; `loadProcessor` of all cores together. */
  readonly loadSeconds: number;
  readonly loadProcessor: number;
  /** From the start of the threads to the text of the first caption. */
  readonly firstCaption: number;
  /** Pixels to ids: the first time, and again. */
  readonly firstRun: number;
  readonly warmRun: number;
  readonly encode: number;
  readonly query: number;
  readonly perToken: number;
  readonly caption: string;
}

/** Load a checkpoint, caption an image twice, and close everything. */
async function measure(ref: string, cacheFolder: string): Promise<Measured> {
  const started = performance.now();
  const group = await openStagesGroup({ cacheFolder });
  try {
    const processor = process.cpuUsage();
    const load = stopwatch();
    const stages = await group.open({ ref, dtype: "f16" });
    const loadSeconds = load();
    const { user, system } = process.cpuUsage(processor);
    process.stderr.write(`bench: full-size: loaded in ${loadSeconds.toFixed(1)} s\n`);
    const first = await caption(stages);
    const firstCaption = (performance.now() - started) / 1000;
    const warm = await caption(stages);
    return {
      adapter: adapterLine(group.report),
      weightBytes: bytesOf(stages),
      peakBytes: process.resourceUsage().maxRSS * 1024,
      loadSeconds,
      loadProcessor: (user + system) / 1e6,
      firstCaption,
      firstRun: first.encode + first.query + first.generate,
      warmRun: warm.encode + warm.query + warm.generate,
      encode: warm.encode,
      query: warm.query,
      perToken: (warm.generate - warm.oneToken) / (newTokens - 1),
      caption: warm.text,
    };
  } finally {
    await group.close();
  }
}

function bytesOf({ memory }: OpenedStages): number {
  return Object.values(memory).reduce((sum, bytes) => sum + bytes, 0);
}

/** @returns seconds since it was made */
function stopwatch(): () => number {
  const started = performance.now();
  return () => (performance.now() - started) / 1000;
}

async function caption(stages: Stages) {
  const pixels = await stages.toPixels(await readFile(image));
  const textIds = await stages.tokenize(null);
  const ofEncode = stopwatch();
  const features = await stages.encode(pixels);
  const encode = ofEncode();
  const ofQuery = stopwatch();
  const prompt = await stages.query(features);
  const query = ofQuery();
  const generate = async (count: number) => {
    const seconds = stopwatch();
    const ids = await stages.generate(prompt, textIds, {
      ...defaultGeneration,
      maxNewTokens: count,
      minNewTokens: count,
    });
    return { seconds: seconds(), ids };
  };
  const all = await generate(newTokens);
  const one = await generate(1);
  const text = await stages.detokenize(all.ids);
  return { encode, query, generate: all.seconds, oneToken: one.seconds, text };
}
