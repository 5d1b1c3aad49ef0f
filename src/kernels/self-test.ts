// Known small answers, asked of the adapter before it is given work: a driver that computes wrongly is refused.

import type { Gpu } from "../gpu/device.ts";
import { KernelError } from "../gpu/errors.ts";
import type { Launch, Recorder } from "../gpu/recorder.ts";
import type { ElementType, Tensor } from "../gpu/tensor.ts";
import type { Choice } from "../gpu/variants.ts";
import { add } from "./add.ts";
import { attention } from "./attention.ts";
import { attentionWeights } from "./attention-weights.ts";
import { convertPlain } from "./convert-plain.ts";
import { convertWeight } from "./convert-weight.ts";
import { embedPatches } from "./embed-patches.ts";
import { handOver } from "./hand-over.ts";
import { layerNorm } from "./layer-norm.ts";
import { meanRows } from "./mean-rows.ts";
import { firstRows } from "./place-rows.ts";
import { quantizeWeight } from "./quantize-weight.ts";
import { rmsNorm } from "./rms-norm.ts";
import { rotary } from "./rotary.ts";
import { decodingQuestions } from "./self-test-decoding.ts";
import { matmulQuestions } from "./self-test-matmul.ts";
import { takeOver } from "./take-over.ts";
import { unfoldPatches } from "./unfold-patches.ts";
import { unitRows } from "./unit-rows.ts";

export interface Question {
  readonly kernel: string;
  readonly answer: Tensor;
  readonly expected: readonly number[];
}

/** A tensor of these values; f16 takes whole u32 words, two halves each, and so do int8 and int4. */
export type Given = (shape: readonly number[], values: readonly number[], type?: ElementType) => Tensor;

/** Relative: a few last places of f32, for exp and division; everything else comes out exactly. */
const tolerance = 2e-6;

/**
 * Run every kernel family that this adapter will use, in one submit. Variants that took part in a wrong answer are
 * refused, and all is asked again with the next ones.
 * @throws KernelError naming the kernel, the element, what was expected and what came, where no variant took part or none
 * is left.
 */
export async function selfTest(gpu: Gpu): Promise<void> {
  for (let failures = await ask(gpu); failures.length > 0; failures = await ask(gpu)) {
    for (const { choices, problem } of failures) {
      if (choices.length === 0) {
        const next = "this adapter or its driver computes wrongly, use another (`blipfleet doctor` names it)";
        throw new KernelError(`${problem}; ${next}`);
      }
      for (const choice of choices) choice.refuse(problem);
    }
  }
}

interface Failure {
  readonly problem: string;
  /** The variants that the answer was computed with. */
  readonly choices: readonly Choice[];
}

/** Ask everything once. @returns what was answered wrongly */
async function ask(gpu: Gpu): Promise<Failure[]> {
  const tensors: Tensor[] = [];
  const uploads: Promise<void>[] = [];
  const given: Given = (shape, values, type = "f32") => {
    const tensor = gpu.alloc("self-test", shape, type);
    tensors.push(tensor);
    const bytes = type === "f32" ? Float32Array.from(values) : Uint32Array.from(values);
    uploads.push(gpu.upload(tensor, new Uint8Array(bytes.buffer)));
    return tensor;
  };
  let launches: Launch[] = [];
  try {
    const list = await gpu.record("self-test", (k) => {
      launches = [];
      const noting: Recorder = {
        softwareAdapter: k.softwareAdapter,
        variants: k.variants,
        scratch: (...asked) => k.scratch(...asked),
        launch(shader, launch) {
          launches.push(launch);
          k.launch(shader, launch);
        },
      };
      return questions(noting, given);
    });
    try {
      await Promise.all(uploads);
      const answers = await gpu.submit([list], { reads: list.result.map(({ answer }) => answer) });
      return list.result.flatMap((question, i) => {
        const problem = problemWith(question, new Float32Array(answers[i] ?? new ArrayBuffer(0)));
        return problem === null ? [] : [{ problem, choices: choicesBehind(question.answer, launches) }];
      });
    } finally {
      list.destroy();
    }
  } finally {
    for (const tensor of tensors) gpu.free(tensor);
  }
}

/** The variants that wrote a tensor, or what it was computed from. */
function choicesBehind(answer: Tensor, launches: readonly Launch[]): Choice[] {
  const behind = new Set([answer]);
  const choices = new Set<Choice>();
  for (const { inputs, outputs, choice } of [...launches].reverse()) {
    if (!Object.values(outputs).some((tensor) => behind.has(tensor))) continue;
    for (const tensor of [...Object.values(inputs), ...Object.values(outputs)]) behind.add(tensor);
    if (choice) choices.add(choice);
  }
  return [...choices];
}

function problemWith({ kernel, expected }: Question, got: Float32Array): string | null {
  for (const [i, want] of expected.entries()) {
    const value = got[i] ?? Number.NaN;
    if (value === want || Math.abs(value - want) <= tolerance * Math.abs(want)) continue;
    return `self-test of ${kernel}: expected ${want} at element ${i}, got ${value}`;
  }
  return null;
}

function questions(k: Recorder, given: Given): Question[] {
  return [
    ...matmulQuestions(k, given),
    askLayerNorm(k, given),
    askRmsNorm(k, given),
    askRotary(k, given),
    askAttention(k, given, { queryTokens: 9, padded: false }),
    askAttention(k, given, { queryTokens: 65, padded: false }),
    askAttention(k, given, { queryTokens: 9, padded: true }),
    askPositionBias(k, given),
    askWeights(k, given),
    askCausal(k, given),
    {
      kernel: "unfold-patches",
      answer: unfoldPatches(k, given([1, 1, 2, 4], [0, 1, 2, 3, 4, 5, 6, 7]), 2),
      expected: [0, 1, 4, 5, 2, 3, 6, 7],
    },
    {
      kernel: "embed-patches",
      answer: embedPatches(k, given([2, 1], [10, 20]), given([1], [1]), given([3, 1], [0.5, 0.25, 0.125]), 1),
      expected: [1.5, 10.25, 20.125],
    },
    {
      kernel: "add",
      answer: add(k, given([4, 1], [1, 2, 3, 4]), given([2, 1], [10, 20])),
      expected: [11, 22, 13, 24],
    },
    {
      kernel: "hand-over and take-over",
      answer: takeOver(k, handOver(k, given([1, 6], [1 / 3, 2049, 2051, -65520, 2 ** -24, 2 ** -25]), "f16")),
      expected: [0.333251953125, 2048, 2052, Number.NEGATIVE_INFINITY, 2 ** -24, 0],
    },
    {
      kernel: "unit-rows",
      answer: unitRows(k, given([2, 2], [3, 4, 0, -1e30])),
      expected: [0.6, 0.8, 0, -1],
    },
    {
      kernel: "mean-rows",
      answer: meanRows(k, given([4, 2], [1, 2, 3, 8, 0, -2, 5, -4]), 2),
      expected: [2, 5, 2.5, -3],
    },
    {
      kernel: "place-rows",
      answer: firstRows(k, given([4, 1], [1, 2, 3, 4]), 2),
      expected: [1, 3],
    },
    askConvertWeight(k, given),
    askQuantizeWeight(k, given, "int8"),
    askQuantizeWeight(k, given, "int4"),
    askConvertPlain(k, given),
    ...decodingQuestions(k, given),
  ];
}

/** Mean 2.5, variance 1.25, and 0.75 makes the root sqrt(2); the second row is far from 0. */
function askLayerNorm(k: Recorder, given: Given): Question {
  const x = given([2, 4], [1, 2, 3, 4, 4001, 4002, 4003, 4004]);
  const norm = { gain: given([4], [1, 1, 2, 2]), bias: given([4], [0, 1, 0, 1]), eps: 0.75 };
  const row = [-1.5 / Math.SQRT2, 1 - 0.5 / Math.SQRT2, 1 / Math.SQRT2, 1 + 3 / Math.SQRT2];
  return { kernel: "layer-norm", answer: layerNorm(k, x, norm), expected: [...row, ...row] };
}

/** Squares of mean 2.25, and 1.75 makes the root 2. */
function askRmsNorm(k: Recorder, given: Given): Question {
  const x = given([1, 4], [1, 2, -2, 0]);
  return {
    kernel: "rms-norm",
    answer: rmsNorm(k, x, { gain: given([4], [1, 2, 3, 4]), eps: 1.75 }, 8),
    expected: [4, 16, -24, 0],
  };
}

/** Two parts of two values, turned by positions 1 and 0 of quarter turns. */
function askRotary(k: Recorder, given: Given): Question {
  const turns = given([2, 2], [1, 0, 0, 1]);
  const positions = { rows: given([1, 3], [7, 1, 0], "u32"), column: 1 };
  return {
    kernel: "rotary",
    answer: rotary(k, given([1, 4], [1, 2, 3, 4]), turns, positions, { heads: 1, headWidth: 4 }),
    expected: [-2, 1, 3, 4],
  };
}

/** Equal keys, and a bias of ln 3 for a key right behind its query, of 0 for the query itself, of -400 elsewhere. */
function askPositionBias(k: Recorder, given: Given): Question {
  const part = (values: readonly number[]) => ({ rows: given([values.length, 1], values), column: 0 });
  const positionBias = given([5, 1], [-400, -400, 0, Math.log(3), -400]);
  const sizes = { batch: 1, queryTokens: 3, keyTokens: 3, heads: 1, headWidth: 1, scale: 1, positionBias };
  return {
    kernel: "attention with position bias",
    answer: attention(k, part([0, 0, 0]), part([1, 1, 1]), part([4, 8, 16]), sizes),
    expected: [7, 14, 16],
  };
}

/** Scores ln 3, 0, and -200 four times: weights 3/4, 1/4 and nothing. With lengths, what follows two keys is padding. */
function askAttention(
  k: Recorder,
  given: Given,
  { queryTokens, padded }: { readonly queryTokens: number; readonly padded: boolean },
): Question {
  const headWidth = 8;
  const firsts = (values: readonly number[]) => values.flatMap((value) => [value, ...new Array(headWidth - 1).fill(0)]);
  const rest = padded ? 400 : -400;
  const keys = firsts([2 * Math.log(3), 0, rest, rest, rest, rest]);
  const past = padded ? Number.NaN : 1;
  const values = [4, 8, past, past, past, past].flatMap((value) => new Array(headWidth).fill(value));
  const part = (rows: Tensor) => ({ rows, column: 0 });
  const lengths = padded ? { keyLengths: given([1], [2], "u32") } : {};
  const sizes = { batch: 1, queryTokens, keyTokens: 6, heads: 1, headWidth, scale: 0.5, ...lengths };
  return {
    kernel: `attention of ${queryTokens} queries${padded ? " with padding" : ""}`,
    answer: attention(
      k,
      part(given([queryTokens, headWidth], firsts(new Array(queryTokens).fill(1)))),
      part(given([6, headWidth], keys)),
      part(given([6, headWidth], values)),
      sizes,
    ),
    expected: new Array(queryTokens * headWidth).fill(5),
  };
}

/** Scores 0 and ln 2, then twice as much. */
function askWeights(k: Recorder, given: Given): Question {
  const part = (values: readonly number[]) => ({ rows: given([2, 1], values), column: 0 });
  const sizes = { batch: 1, queryTokens: 2, keyTokens: 2, heads: 1, headWidth: 1, scale: 1 };
  return {
    kernel: "attention-weights",
    answer: attentionWeights(k, part([1, 2]), part([0, Math.log(2)]), sizes),
    expected: [0.5, 1, 0.25, 1],
  };
}

/** Scores ln 3, 0 and ln 4, each seen from its own row on: 4 alone, then 3/4 of it and 1/4 of 8, then 1/2 of 1 with both. */
function askCausal(k: Recorder, given: Given): Question {
  const keys = given([3, 2], [Math.log(3), 0, 0, 0, Math.log(4), 0]);
  const part = (rows: Tensor) => ({ rows, column: 0 });
  const sizes = { batch: 1, queryTokens: 3, keyTokens: 3, heads: 1, headWidth: 2, scale: 1, causal: true };
  const queries = given([3, 2], [1, 0, 1, 0, 1, 0]);
  return {
    kernel: "causal attention",
    answer: attention(k, part(queries), part(keys), part(given([3, 2], [4, 4, 8, 8, 1, 1])), sizes),
    expected: [4, 4, 5, 5, 3, 3],
  };
}

/** bf16 1, 2, 3 and -0.5, two rows of two inputs. */
function askConvertWeight(k: Recorder, given: Given): Question {
  const bytes = given([2], [0x40003f80, 0xbf004040], "u32");
  const destination = given([2, 4], new Array(8).fill(9));
  convertWeight(k, { bytes, type: "bf16", rows: 2, inputs: 2 }, destination, 0);
  return { kernel: "convert-weight", answer: destination, expected: [1, 3, 0, 0, 2, -0.5, 0, 0] };
}

/** bf16 1, 2, and 3, -0.5, two rows of two inputs: the least and half of it; the least and what is nearest to -1/6 of it. */
function askQuantizeWeight(k: Recorder, given: Given, type: "int8" | "int4"): Question {
  const answer = given([2, 4], [], type);
  const notice = { refused: given([1], [0], "u32"), number: 1 };
  const bytes = given([2], [0x40003f80, 0xbf004040], "u32");
  quantizeWeight(k, { bytes, type: "bf16", rows: 2, inputs: 2 }, answer, 0, notice);
  const [words, count, scales] = type === "int8" ? [[0x80c0, 0x1580], 8, 0xbcc0bc80] : [[0x8c, 0x18], 4, 0xbec0be80];
  const expected = Uint32Array.from([...words, ...new Array<number>(4 * count - 2).fill(0), scales, 0]);
  // Compared as floats, which no two of these words are the same of.
  return { kernel: `quantize-weight to ${type}`, answer, expected: [...new Float32Array(expected.buffer)] };
}

/** f16 1, 2^-24 and -inf. */
function askConvertPlain(k: Recorder, given: Given): Question {
  const destination = given([4], [7, 7, 7, 7]);
  convertPlain(k, { bytes: given([2], [0x00013c00, 0xfc00], "u32"), type: "f16", count: 3 }, destination, 1);
  return { kernel: "convert-plain", answer: destination, expected: [7, 1, 2 ** -24, Number.NEGATIVE_INFINITY] };
}
