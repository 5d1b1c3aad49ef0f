// Tokens per second of rows of many lengths that share batches of generate: where a row that is done makes room for the next,
// against batches that wait for their slowest row. And one submit at a time against two.
//
// Beside tokens per second stand tokens per second of processor time, which other work on the machine does not change much on
// a CPU driver, and the steps that all rows took, which nothing but the order of their ends changes.

import type { BenchOptions, BenchRow } from "../src/cli/bench.ts";
import { adapterLine } from "../src/gpu/adapter.ts";
import { type Gpu, openGpu } from "../src/gpu/device.ts";
import { median } from "../src/gpu/median.ts";
import type { RowProgram } from "../src/gpu/row-program.ts";
import { RowScheduler } from "../src/gpu/scheduler.ts";
import { blip2Config } from "../src/models/blip-2-config.ts";
import { type GenerateOptions, generateProgram, paceOf } from "../src/models/generate.ts";
import type { GenerateRow } from "../src/models/generate-row.ts";
import type { LanguageModel } from "../src/models/language-model.ts";
import { WeightLoader } from "../src/models/load.ts";
import { optLanguageModel } from "../src/models/opt.ts";
import { defaultGeneration } from "../src/stages.ts";
import { openCheckpoint, readSettings } from "../src/weights/checkpoint.ts";
import { optNames } from "../src/weights/names/blip-2-opt.ts";
import { heavy, type RandomCheckpoint, writeRandomCheckpoint } from "./random-checkpoint.ts";
import { inTemporaryFolder } from "./temporary-folder.ts";

/** A language model whose step is work enough that launching it is not all of it: 11 million weights. */
const language: RandomCheckpoint = {
  ...heavy,
  config: (like) => ({
    ...heavy.config(like),
    text_config: {
      ...like.text_config,
      ...{ hidden_size: 384, word_embed_proj_dim: 384, num_attention_heads: 6, num_hidden_layers: 6, ffn_dim: 1536 },
      max_position_embeddings: 128,
    },
  }),
};

const rowCount = 48;
const rounds = 5;
/** Most answers are short, one in four is as long as may be: questions and descriptions in one job. */
const mixedLengths = Array.from({ length: rowCount }, (_, i) => (i % 4 === 1 ? 32 : 2 + ((7 * i) % 9)));
const equalLengths = mixedLengths.map(() => 12);

interface Figures {
  /** Tokens per second. */
  readonly rate: number;
  /** Tokens per second of processor time of this process, the driver's threads included. */
  readonly processorRate: number;
  readonly steps: number;
}

export async function rows({ about }: BenchOptions): Promise<readonly BenchRow[]> {
  const gpu = await openGpu({ nap: true, validation: false });
  about?.({ adapter: adapterLine(gpu.report) });
  try {
    return await inTemporaryFolder("blipfleet-bench-", (folder) => measured(gpu, folder));
  } finally {
    gpu.close();
  }
}

async function measured(gpu: Gpu, folder: string): Promise<BenchRow[]> {
  const { model, loader } = await loadLanguage(gpu, await writeRandomCheckpoint(folder, language));
  const mixed = await compare(gpu, model, mixedLengths, { isJoined: true }, { isJoined: false });
  const equal = await compare(gpu, model, equalLengths, { isJoined: true }, { isJoined: false });
  const flights = await compare(gpu, model, mixedLengths, { inFlight: 2 }, { inFlight: 1 });
  loader.release();
  return [
    ...rowsOf("batching mixed lengths, joined; beside: waiting for the slowest", mixed),
    ...rowsOf("batching equal lengths, joined; beside: waiting for the slowest", equal),
    ...rowsOf("batching mixed lengths, two submits in flight; beside: one", flights),
  ];
}

function rowsOf(name: string, { ours, peer }: { readonly ours: Figures; readonly peer: Figures }): BenchRow[] {
  const row = (what: string, of: (figures: Figures) => number, unit: string, ratio: number): BenchRow => ({
    name: `${name}${what}`,
    ours: of(ours),
    peer: of(peer),
    unit,
    ratio,
  });
  return [
    row("", ({ rate }) => rate, "tokens/s", ours.rate / peer.rate),
    row(", processor time", ({ processorRate }) => processorRate, "tokens/s", ours.processorRate / peer.processorRate),
    row(", steps", ({ steps }) => steps, "steps", peer.steps / ours.steps),
  ];
}

async function loadLanguage(gpu: Gpu, folder: string) {
  const checkpoint = await openCheckpoint(folder);
  const config = blip2Config(folder, (await readSettings(checkpoint, "config.json")) ?? {});
  const loader = new WeightLoader(gpu, checkpoint, "f32");
  const { queries, imageId, text } = config;
  const model = optLanguageModel(await loader.load(optNames(config)), text, { queries, imageId, cacheType: "f32" });
  return { model, loader };
}

interface Way extends Pick<GenerateOptions, "inFlight"> {
  /** Rows join batches that are under way; default true. */
  readonly isJoined?: boolean;
}

/** Both ways in turns, each warm; medians. */
async function compare(gpu: Gpu, model: LanguageModel, lengths: readonly number[], ours: Way, peer: Way) {
  const sides = [await side(gpu, model, lengths, ours), await side(gpu, model, lengths, peer)] as const;
  const measured: readonly [Figures[], Figures[]] = [[], []];
  for (let round = 0; round < rounds; round++) {
    for (const [i, { run }] of sides.entries()) measured[i]?.push(await run());
    const [a, b] = measured.map((figures) => figures.at(-1)?.rate.toFixed(1));
    process.stderr.write(`bench: batching: round ${round + 1} of ${rounds}: ${a} and ${b} tokens/s\n`);
  }
  for (const { close } of sides) close();
  const [first, second] = measured.map(medians);
  return { ours: first as Figures, peer: second as Figures };
}

async function side(gpu: Gpu, model: LanguageModel, lengths: readonly number[], { isJoined = true, inFlight }: Way) {
  let steps = 0;
  const { steps: plan } = paceOf(gpu);
  const program = generateProgram(gpu, model, {
    steps(left, milliseconds) {
      const count = plan(left, milliseconds);
      steps += count;
      return count;
    },
    ...(inFlight && { inFlight }),
  });
  const given = isJoined ? program : withoutJoining(program);
  const all = lengths.map((length, i) => textRow(model, length, i));
  const tokens = lengths.reduce((sum, length) => sum + length, 0);
  const run = async (): Promise<Figures> => {
    const scheduler = new RowScheduler();
    steps = 0;
    const cpu = process.cpuUsage();
    const started = performance.now();
    await Promise.all(all.map((row) => scheduler.run(given, row)));
    const seconds = (performance.now() - started) / 1000;
    const { user, system } = process.cpuUsage(cpu);
    await scheduler.close();
    return { rate: tokens / seconds, processorRate: tokens / ((user + system) / 1e6), steps };
  };
  await run();
  return { run, close: () => program.close() };
}

/** Batches as they were before rows could join: nobody takes the place of a row that is done. */
function withoutJoining<In, Out>(program: RowProgram<In, Out>): RowProgram<In, Out> {
  return {
    ...program,
    start(given) {
      const { joining: _, ...batch } = program.start(given);
      return batch;
    },
  };
}

/** A prompt of made-up values, and exactly so many new ids. */
function textRow({ prompt }: LanguageModel, length: number, seed: number): GenerateRow {
  const values = Float32Array.from({ length: prompt.shape[0] * prompt.shape[1] }, (_, i) => Math.sin(i * (seed + 1)));
  return {
    prompt: { ...prompt, type: "f32", bytes: new Uint8Array(values.buffer) },
    textIds: [2, 5, 7],
    generation: { ...defaultGeneration, maxNewTokens: length, minNewTokens: length },
  };
}

function medians(figures: readonly Figures[]): Figures {
  const of = (value: (each: Figures) => number) => median(figures.map(value));
  return {
    rate: of(({ rate }) => rate),
    processorRate: of(({ processorRate }) => processorRate),
    steps: of(({ steps }) => steps),
  };
}
