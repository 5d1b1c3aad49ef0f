// One class of shapes: every candidate's answer is checked, and those that are right are timed in turns.

import type { Gpu } from "../gpu/device.ts";
import { KernelError } from "../gpu/errors.ts";
import { median } from "../gpu/median.ts";
import type { Recording } from "../gpu/recording.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { missingOf, type Variant, variantName } from "../gpu/variants.ts";
import type { Adapter, OpenTrial, TunedOperation } from "./tuned-operation.ts";

export interface Candidate {
  readonly variant: Variant;
  /** Median of one run; null where it was not timed. */
  readonly milliseconds: number | null;
  /** Seconds until its first answer: compilation, unless the driver remembers it. */
  readonly compiled: number;
  /** Why it is not to be trusted on this adapter; null: it is. */
  readonly problem: string | null;
}

export interface ClassResult {
  readonly operation: string;
  readonly shapeClass: string;
  /** Classes of the same operation and group compile the same shader. */
  readonly group: string;
  readonly measured: string;
  /** All that were tried; those that were timed first, the fastest at the head. */
  readonly candidates: readonly Candidate[];
  /** What runs without this measurement; null where that does not work here. */
  readonly usual: Candidate | null;
  readonly chosen: Candidate;
}

/** wall: what a user waits for. processor: time of all threads, for a CPU driver on a machine that does other work, too. */
export type Clock = "wall" | "processor";

export interface MeasureOptions {
  readonly clock: Clock;
  /** Seconds of timing, after compilation and checks. */
  readonly seconds: number;
}

/** A gain that is not worth another pipeline, and may be noise. */
export const noise = 0.05;
/**
 * What a variant may be slower that compiles in half the time and `seconds` less: a CPU driver takes a second or two for one
 * pipeline, and a model has dozens.
 */
export const quickly = { slower: 0.25, seconds: 0.5 };
/** Candidates this much slower than the best are timed no more after the first rounds. */
const hopeless = 1.5;
const roundsForAll = 2;
const mostRounds = 25;
const leastRounds = 3;
/** Milliseconds of one submit: long enough for a clock, and short enough for any driver. */
const submitLength = 30;
const mostRuns = 1000;
/** Elements whose answers are computed here; all others are compared with another candidate's. */
const sampled = 48;

interface Side {
  readonly variant: Variant;
  readonly list: Recording<Tensor>;
  readonly times: number[];
  readonly compiled: number;
  runs: number;
}

/**
 * Time the candidates of one class.
 * @throws KernelError when none gives right answers
 */
export async function measureClass(
  gpu: Gpu,
  operation: TunedOperation,
  shapeClass: string,
  adapter: Adapter,
  { clock, seconds }: MeasureOptions,
): Promise<ClassResult> {
  const { measured, open } = operation.trial(shapeClass, adapter);
  const usual = usualVariant(gpu, operation, shapeClass);
  const offered = [...(usual ? [usual] : []), ...operation.candidates(shapeClass, adapter)];
  const tried = [...new Map(offered.map((each) => [variantName(each), each])).values()].filter(
    (each) => missingOf(gpu.report, operation.needs?.(each) ?? {}) === null,
  );
  const trial = await open(gpu);
  const sides: Side[] = [];
  const wrong: Candidate[] = [];
  try {
    let first: Float32Array | null = null;
    for (const variant of tried) {
      const made = await prepared(gpu, operation, variant, trial, first);
      if ("problem" in made) wrong.push({ variant, milliseconds: null, compiled: 0, problem: made.problem });
      else {
        sides.push(made.side);
        first ??= made.result;
      }
    }
    if (sides.length === 0) {
      const problems = wrong.map(({ variant, problem }) => `${variantName(variant)}: ${problem}`);
      throw new KernelError(
        `${operation.name}, ${shapeClass}: expected a variant that works, got none:\n${problems.join("\n")}`,
      );
    }
    await inTurns(gpu, sides, clock, seconds);
  } finally {
    for (const { list } of sides) list.destroy();
    trial.close();
  }
  const timed = sides
    .map(({ variant, times, compiled }): Candidate & { readonly milliseconds: number } => {
      return { variant, milliseconds: median(times), compiled, problem: null };
    })
    .sort((a, b) => a.milliseconds - b.milliseconds);
  const candidates = [...timed, ...wrong];
  const named = (variant: Variant | null) =>
    candidates.find((each) => variant !== null && variantName(each.variant) === variantName(variant)) ?? null;
  const [chosen] = timed;
  if (chosen === undefined) throw new KernelError(`${operation.name}, ${shapeClass}: expected times, got none`);
  const group = operation.group?.(shapeClass) ?? "";
  return { operation: operation.name, shapeClass, group, measured, candidates, usual: named(usual), chosen };
}

/**
 * The same results, but of the variants that are as fast as the fastest, up to noise or for what they save in compilation, each
 * class has the one that is so in most classes of its group: it is compiled anyway. Of equals it has the one that is compiled
 * fastest.
 */
export function chooseTogether(results: readonly ClassResult[]): ClassResult[] {
  const nearBest = ({ candidates, chosen }: ClassResult) =>
    candidates.filter(({ milliseconds, compiled }) => {
      if (milliseconds === null || chosen.milliseconds === null) return false;
      const saves = compiled <= chosen.compiled / 2 && compiled <= chosen.compiled - quickly.seconds;
      return milliseconds <= chosen.milliseconds * (1 + (saves ? quickly.slower : noise));
    });
  const uses = new Map<string, number>();
  const key = ({ operation, group }: ClassResult, { variant }: Candidate) =>
    JSON.stringify([operation, group, variantName(variant)]);
  for (const result of results) {
    for (const each of nearBest(result)) uses.set(key(result, each), (uses.get(key(result, each)) ?? 0) + 1);
  }
  return results.map((result) => {
    const shared = (each: Candidate) => uses.get(key(result, each)) ?? 0;
    const [chosen = result.chosen] = nearBest(result).sort((a, b) => shared(b) - shared(a) || a.compiled - b.compiled);
    return { ...result, chosen };
  });
}

/** What runs without a table of this machine, or null where none works. */
function usualVariant(gpu: Gpu, operation: TunedOperation, shapeClass: string): Variant | null {
  try {
    return gpu.variants.choose(operation, shapeClass).variant;
  } catch (error) {
    if (error instanceof KernelError) return null;
    throw error;
  }
}

/** Compile a candidate and compare its answer. @param other an answer that was found right, if there is one */
async function prepared(
  gpu: Gpu,
  operation: TunedOperation,
  variant: Variant,
  trial: OpenTrial,
  other: Float32Array | null,
): Promise<{ readonly side: Side; readonly result: Float32Array } | { readonly problem: string }> {
  let refusal: string | null = null;
  const variants = gpu.variants.with(operation, variant, (line) => {
    refusal ??= line;
  });
  const started = performance.now();
  let list: Recording<Tensor>;
  try {
    list = await gpu.record(operation.name, (k) =>
      trial.forward({
        softwareAdapter: k.softwareAdapter,
        variants,
        scratch: (...asked) => k.scratch(...asked),
        launch: (...asked) => k.launch(...asked),
      }),
    );
  } catch (error) {
    if (error instanceof KernelError) return { problem: refusal ?? error.message };
    throw error;
  }
  const [bytes = new ArrayBuffer(0)] = await gpu.submit([list], { reads: [list.result] });
  const compiled = (performance.now() - started) / 1000;
  const result = new Float32Array(bytes);
  const problem = wrongAnswer(result, trial, other);
  if (problem === null) return { side: { variant, list, times: [], compiled, runs: 1 }, result };
  list.destroy();
  return { problem };
}

/** Some elements against answers in f64, and all of them against another variant's. */
function wrongAnswer(result: Float32Array, trial: OpenTrial, other: Float32Array | null): string | null {
  let most = 0;
  for (let sample = 0; sample < sampled; sample++) {
    // Spread evenly, the last element among them.
    const i = result.length - 1 - Math.floor((sample * result.length) / sampled);
    const { value, tolerance } = trial.expected(i);
    const got = result[i] ?? Number.NaN;
    most = Math.max(most, tolerance);
    if (!(Math.abs(got - value) <= tolerance)) return `expected ${value} at element ${i}, got ${got}`;
  }
  if (other === null) return null;
  const i = result.findIndex((got, at) => !(Math.abs(got - (other[at] ?? Number.NaN)) <= 2 * most));
  return i < 0 ? null : `expected ${other[i]} at element ${i} as another variant gives, got ${result[i]}`;
}

/** Fill `times`. Every other round goes through the sides backwards; runs of one submit write the same result in turn. */
async function inTurns(gpu: Gpu, sides: readonly Side[], clock: Clock, seconds: number): Promise<void> {
  for (const side of sides) {
    const once = await timeOf(gpu, side, clock);
    side.runs = Math.max(1, Math.min(mostRuns, Math.round(submitLength / once)));
  }
  const end = performance.now() + seconds * 1000;
  let left = [...sides];
  for (let round = 0; round < mostRounds && (round < leastRounds || performance.now() < end); round++) {
    for (const side of round % 2 === 0 ? left : [...left].reverse()) side.times.push(await timeOf(gpu, side, clock));
    if (round + 1 < roundsForAll) continue;
    const best = Math.min(...left.map(({ times }) => median(times)));
    left = left.filter(({ times }) => median(times) <= hopeless * best);
  }
}

/** Milliseconds of one run out of as many as a submit takes. */
async function timeOf(gpu: Gpu, { list, runs }: Side, clock: Clock): Promise<number> {
  const { name, type, storage, byteOffset } = list.result;
  const now = () => {
    if (clock === "wall") return performance.now();
    const { user, system } = process.cpuUsage();
    return (user + system) / 1000;
  };
  const started = now();
  await gpu.submit(new Array(runs).fill(list), { reads: [{ name, type, storage, byteOffset, shape: [4] }] });
  return (now() - started) / runs;
}
