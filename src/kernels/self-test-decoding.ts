// The part of the self-test that asks the kernels of decoding: small cases whose answers can be done by hand.

import type { Recorder } from "../gpu/recorder.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { advance } from "./advance.ts";
import { appendCache } from "./append-cache.ts";
import { beamCandidates } from "./beam-candidates.ts";
import { beamScores } from "./beam-scores.ts";
import { beamStep } from "./beam-step.ts";
import { blockPositions } from "./block-positions.ts";
import { cachedAttention } from "./cached-attention.ts";
import { type DecodeState, none } from "./decode-state.ts";
import { embedPrompt } from "./embed-prompt.ts";
import { embedTokens } from "./embed-tokens.ts";
import { givenStep } from "./given-step.ts";
import { greedyScores } from "./greedy-scores.ts";
import { greedyStep } from "./greedy-step.ts";
import { logSumExp } from "./log-sum-exp.ts";
import { sampleBest } from "./sample-best.ts";
import { sampleLimits } from "./sample-limits.ts";
import { sampleScores } from "./sample-scores.ts";
import { selectRows } from "./select-rows.ts";
import type { Given, Question } from "./self-test.ts";

export function decodingQuestions(k: Recorder, given: Given): Question[] {
  return [
    askEmbeddings(k, given),
    ...askCache(k, given, "f32"),
    ...askCache(k, given, "f16"),
    askManyPositions(k, given),
    askPositionBias(k, given),
    askContext(k, given),
    askBlockPositions(k, given),
    {
      kernel: "select-rows",
      answer: selectRows(k, given([3, 1], [5, 6, 7]), u32(given, [2], [2, 0])),
      expected: [7, 5],
    },
    ...askGreedy(k, given),
    askSample(k, given),
    ...askBeams(k, given),
    askGiven(k, given),
  ];
}

const u32 = (given: Given, shape: readonly number[], values: readonly number[]) => given(shape, values, "u32");

/** Words as the f32 values that answers are read as. */
const asFloats = (words: readonly number[]) => [...new Float32Array(Uint32Array.from(words).buffer)];

const floatBits = (value: number) => new Uint32Array(Float32Array.of(value).buffer)[0] ?? 0;

/** An image slot, ids of the first and the second segment, a padding row; position t reads table row t + 1. */
function askEmbeddings(k: Recorder, given: Given): Question {
  const segments = [
    { weight: given([2, 4], [1, 2, 0, 0, 3, 4, 0, 0]), from: 0, width: 2 },
    { weight: given([2, 4], [5, 0, 0, 0, 6, 0, 0, 0]), from: 2, width: 1 },
  ];
  const head = { segments, bias: null, inputs: 2, columns: 3 };
  const positions = given([4, 2], [900, 900, 10, 20, 30, 40, 50, 60]);
  const cursors = u32(given, [4, 4], [none, 0, 0, 0, 1, 1, 1, 0, 2, 2, 2, 0, none, none, none, 0]);
  const x = given([4, 2], new Array(8).fill(9));
  embedTokens(k, x, head, positions, cursors, 1);
  embedPrompt(k, x, given([1, 2], [0.5, 0.25]), positions, 1, 1);
  return { kernel: "embed-tokens and embed-prompt", answer: x, expected: [10.5, 20.25, 32, 44, 55, 66, 0, 0] };
}

/**
 * Two rows of one sequence: the first sees itself; the second has weights 1/4 and 3/4. f16 makes 2048 of 2049. What is in the
 * cache is asked for itself, too: it is no fault of a variant that reads it.
 */
function askCache(k: Recorder, given: Given, type: "f32" | "f16"): Question[] {
  const nothing = new Array(type === "f16" ? 4 : 8).fill(0);
  const cache = { keys: given([2, 4], nothing, type), values: given([2, 4], nothing, type) };
  const cursors = u32(given, [2, 4], [7, 0, 1, 0, 7, 1, 0, 0]);
  const table = u32(given, [1, 2], [1, 0]);
  const first = 2049;
  appendCache(k, given([2, 4], [0, 0, 0, 0, 1, 0, 0, 0]), given([2, 4], [1, first, 2, 3, 4, 5, 6, 7]), cursors, cache);
  const queries = given([2, 4], [1, 0, 0, 0, 2 * Math.log(3), 0, 0, 0]);
  const large = type === "f16" ? 2048 : first;
  // Slot 0 is the second row's. As f16: 4 and 5, 6 and 7, 1 and 2048 (whose last bit a float of both keeps), 2 and 3.
  const halves = asFloats([0x45004400, 0x47004600, 0x68003c00, 0x42004000]);
  return [
    {
      kernel: `append-cache in ${type}`,
      answer: cache.values,
      expected: type === "f16" ? halves : [4, 5, 6, 7, 1, first, 2, 3],
    },
    {
      kernel: `cached-attention in ${type}`,
      answer: cachedAttention(k, queries, cache, table, cursors, 1, 0.5),
      expected: [1, large, 2, 3, 3.25, large / 4 + 3.75, 5, 6],
    },
  ];
}

/** More positions than a span or a block has: 320 of weight 1, and behind them one of 320. The second row sees two of them. */
function askManyPositions(k: Recorder, given: Given): Question {
  const before = 320;
  const lines = (line: readonly number[], last: readonly number[]) => [...new Array(before).fill(line).flat(), ...last];
  const cache = {
    keys: given([before + 1, 4], lines([0, 0, 0, 0], [0, Math.log(before), 0, 0])),
    values: given([before + 1, 4], lines([4, 1, 2, 0], [8, 3, 4, 16])),
  };
  const table = u32(
    given,
    [1, before + 1],
    Array.from({ length: before + 1 }, (_, position) => position),
  );
  const cursors = u32(given, [2, 4], [7, before, 0, 0, 7, 1, 0, 0]);
  return {
    kernel: "cached-attention over many positions",
    answer: cachedAttention(k, given([2, 4], [0, 2, 0, 0, 1, 1, 1, 1]), cache, table, cursors, 1, 0.5),
    expected: [6, 2, 3, 8, 4, 1, 2, 0],
  };
}

/** Three equal keys, and a bias of ln 3 for the one right before the query, of 0 for the query's own, of -400 farther. */
function askPositionBias(k: Recorder, given: Given): Question {
  const cache = { keys: given([3, 1], [1, 1, 1]), values: given([3, 1], [4, 8, 16]) };
  const cursors = u32(given, [2, 4], [7, 2, 0, 0, 7, 0, 0, 0]);
  const positionBias = given([5, 1], [-400, Math.log(3), 0, 9, 9]);
  const table = u32(given, [1, 3], [0, 1, 2]);
  return {
    kernel: "cached-attention with position bias",
    answer: cachedAttention(k, given([2, 1], [0, 0]), cache, table, cursors, 1, 1, { positionBias }),
    expected: [10, 4],
  };
}

/** Equal keys: the first of a context of two positions sees both, the one behind the context sees all three. */
function askContext(k: Recorder, given: Given): Question {
  const cache = { keys: given([3, 1], [1, 1, 1]), values: given([3, 1], [4, 8, 18]) };
  const cursors = u32(given, [2, 4], [7, 0, 0, 0, 7, 2, 0, 0]);
  const table = u32(given, [1, 3], [0, 1, 2]);
  const contexts = u32(given, [1], [2]);
  return {
    kernel: "cached-attention with a context",
    answer: cachedAttention(k, given([2, 1], [0, 0]), cache, table, cursors, 1, 1, { contexts }),
    expected: [6, 10],
  };
}

/** Positions 1, 2 and 3 with a context of two: (1, 0), (1, 1), (1, 2). */
function askBlockPositions(k: Recorder, given: Given): Question {
  const cursors = u32(given, [4, 4], [7, 1, 0, 0, 7, 2, 0, 0, 7, 3, 0, 0, 7, none, 0, 0]);
  return {
    kernel: "block-positions",
    answer: blockPositions(k, cursors, u32(given, [1], [2])),
    expected: asFloats([1, 0, 1, 1, 1, 2]),
  };
}

function stateOf(given: Given, beams: number, settings: readonly number[], promptIds: number): DecodeState {
  const newRows = settings.length - 4;
  const rows = (width: number, value = 0) => u32(given, [beams, width], new Array(beams * width).fill(value));
  const running = Array.from({ length: beams }, (_, beam) => floatBits(beam === 0 ? 0 : -1e9));
  const ended = Array.from({ length: beams }, () => [0, floatBits(-1e9), 0, ...new Array(newRows).fill(0)]);
  return {
    items: 1,
    beams,
    newRows,
    vocabulary: 4,
    stopCount: 1,
    promptSlots: 10,
    settings: u32(given, [1, settings.length], settings),
    stopIds: u32(given, [1], [3]),
    progress: u32(given, [1, 2 + beams], [0, 0, ...running]),
    choice: rows(2),
    cursors: rows(4),
    table: rows(3, 5),
    seen: rows(1, promptIds),
    history: rows(newRows),
    ended: u32(given, [beams, 3 + newRows], ended.flat()),
  };
}

/** Ids 0 and 3 lead, but 3 may not end yet and the penalty halves 0, so that 1 wins, the lower of two equal ones. */
function askGreedy(k: Recorder, given: Given): Question[] {
  const state = stateOf(given, 1, [2, 1, floatBits(2), 1, floatBits(1), floatBits(2)], 1 << 0);
  const cut = { chunk: 2, chunks: 2 };
  greedyStep(k, greedyScores(k, given([1, 4], [7, 4, 4, 9]), state, cut), state);
  advance(k, state);
  return [
    { kernel: "greedy-scores and greedy-step", answer: state.ended, expected: asFloats([1, floatBits(4), 1, 1, 0]) },
    { kernel: "advance of one", answer: state.cursors, expected: asFloats([1, 1, 10, 0]) },
  ];
}

/**
 * Scores 4, 2 and 3.5; 3 may not end yet. The noise of these ids is -0.878, 3.162 and 0.359, so that 1 would win if
 * top-k did not leave it out, and 2 does.
 */
function askSample(k: Recorder, given: Given): Question {
  const state = stateOf(given, 1, [2, 1, floatBits(1), 1, floatBits(1), floatBits(2)], 0);
  const sampling = u32(given, [1, 8], [floatBits(2), 2, floatBits(0.99), 2, 0, 5, 6, 0]);
  const cut = { chunk: 4, chunks: 1 };
  const made = sampleScores(k, given([1, 4], [8, 4, 7, 18]), state, sampling, cut);
  const limits = sampleLimits(k, made, sampling);
  greedyStep(k, sampleBest(k, made.scores, limits, state, sampling, cut), state);
  advance(k, state);
  return {
    kernel: "sample-scores, sample-limits and sample-best",
    answer: state.cursors,
    expected: asFloats([2, 1, 10, 0]),
  };
}

/** Probabilities 1/2, 1/4, 1/8 and, for the id that ends, 1/8: two run on; the end is below the first two. */
function askBeams(k: Recorder, given: Given): Question[] {
  const state = stateOf(given, 2, [2, 0, floatBits(1), 1, floatBits(1), floatBits(2)], 0);
  const cut = { chunk: 2, chunks: 2 };
  const own = [5 + Math.log(4), 5 + Math.log(2), 5, 5];
  const logits = given([2, 4], [...own, ...own]);
  const scores = beamScores(k, logits, logSumExp(k, logits, cut), state, cut);
  beamStep(k, beamCandidates(k, scores, 2, 4, cut), state);
  advance(k, state);
  const running: Tensor = state.progress;
  return [
    {
      kernel: "log-sum-exp, beam-scores and beam-step",
      answer: running,
      expected: [...asFloats([1, 0]), -Math.log(2), -Math.log(4)],
    },
    { kernel: "beam-candidates and advance", answer: state.cursors, expected: asFloats([0, 1, 10, 0, 1, 1, 12, 1]) },
    { kernel: "advance of two", answer: state.table, expected: asFloats([5, 10, 5, 5, 12, 5]) },
  ];
}

/** The probabilities of askBeams; the sequences begin with ids of 1/4 and 1/8, and the second one has one id. */
function askGiven(k: Recorder, given: Given): Question {
  const state = stateOf(given, 2, [2, 0, floatBits(1), 1, floatBits(1), floatBits(2)], 0);
  const logits = given([1, 4], [5 + Math.log(4), 5 + Math.log(2), 5, 5]);
  const partials = logSumExp(k, logits, { chunk: 2, chunks: 2 });
  givenStep(k, logits, partials, u32(given, [2, 2], [1, 0, 2, none]), state);
  return {
    kernel: "given-step",
    answer: state.progress,
    expected: [...asFloats([1, 0]), -Math.log(4), -1e9 - Math.log(8)],
  };
}
