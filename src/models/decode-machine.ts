// The GPU side of one batch under way: state buffers, caches, and the two recorded lists that every step replays.

import type { Gpu } from "../gpu/device.ts";
import type { Recorder } from "../gpu/recorder.ts";
import type { Recording } from "../gpu/recording.ts";
import type { ElementType, Tensor } from "../gpu/tensor.ts";
import { advance } from "../kernels/advance.ts";
import type { LayerCache } from "../kernels/append-cache.ts";
import { beamCandidates } from "../kernels/beam-candidates.ts";
import { beamScores } from "../kernels/beam-scores.ts";
import { beamStep } from "../kernels/beam-step.ts";
import { type DecodeState, endedHead, none, samplingWidth, settingsHead } from "../kernels/decode-state.ts";
import { givenStep } from "../kernels/given-step.ts";
import { greedyScores } from "../kernels/greedy-scores.ts";
import { greedyStep } from "../kernels/greedy-step.ts";
import { logSumExp } from "../kernels/log-sum-exp.ts";
import { sampleBest } from "../kernels/sample-best.ts";
import { sampleLimits } from "../kernels/sample-limits.ts";
import { sampleScores } from "../kernels/sample-scores.ts";
import { vocabularyChunks } from "../kernels/vocabulary-chunks.ts";
import { type MemoryTensors, memoryTensors, memoryWords, wordsFor } from "./decode-memory.ts";
import {
  cacheSlots,
  cacheStride,
  firstIds,
  type GenerateBuckets,
  type GenerateRow,
  itemRows,
  keptPerBeam,
  positionOfRow,
  promptLength,
} from "./generate-row.ts";
import type { LanguageModel, ModelPart } from "./language-model.ts";
import { samplingWords } from "./sampling-words.ts";
import { operationsPerSubmit, submits } from "./staged-program.ts";

export interface DecodeMachine {
  readonly items: number;
  readonly buckets: GenerateBuckets;
  readonly state: DecodeState;
  /** Read all prompts and choose the first id of every row; more than one where one submit would take too long. */
  readonly first: readonly Recording[];
  /** Of given ids: the same once more, for the same prompts; the memory, where there is one, stays as it is. */
  readonly again: readonly Recording[];
  /** Read the last ids and choose the next one of every row; likewise. */
  readonly next: readonly Recording[];
  /** Write the prompts, ids and settings of rows; the items behind them are done from the start. */
  load(rows: readonly GenerateRow[]): Promise<void>;
  destroy(): void;
}

/**
 * Buffers and recordings for `items` rows of these buckets.
 * @param mostOperations floating-point operations that one recording may hold, if its parts allow.
 * @throws KernelError, OutOfMemoryError
 */
export async function makeDecodeMachine(
  gpu: Gpu,
  model: LanguageModel,
  items: number,
  buckets: GenerateBuckets,
  mostOperations = operationsPerSubmit(gpu),
): Promise<DecodeMachine> {
  const { beams, newRows, promptType } = buckets;
  const perItem = itemRows(model, buckets);
  const tokens = perItem.sequence;
  const rows = items * beams;
  const tensors: Tensor[] = [];
  const alloc = (name: string, shape: readonly number[], type: ElementType = "u32"): Tensor => {
    const tensor = gpu.alloc(name, shape, type);
    tensors.push(tensor);
    return tensor;
  };
  const promptSize = model.prompt.shape[0] * model.prompt.shape[1];
  const itemStride = promptType === "f16" ? Math.ceil(promptSize / 2) * 2 : promptSize;
  const prompt = alloc("prompt", [items, itemStride], promptType);
  const promptCursors = alloc("promptCursors", [items * tokens, 4]);
  const lastRows = alloc("lastRows", [items]);
  const cacheOf = (what: string, slots: number): LayerCache[] =>
    Array.from({ length: model.cache.layers }, (_, i) => ({
      keys: alloc(`${what}keys ${i}`, [slots, cacheStride(model)], model.cache.type),
      values: alloc(`${what}values ${i}`, [slots, cacheStride(model)], model.cache.type),
    }));
  const cache = cacheOf("", cacheSlots(model, items, buckets));
  const memory = memoryTensors(model, items, buckets, alloc, cacheOf);
  const state: DecodeState = {
    items,
    beams,
    newRows,
    vocabulary: model.vocabulary,
    stopCount: model.stopIds.length,
    slotBase: items * tokens,
    settings: alloc("settings", [items, settingsHead + newRows]),
    stopIds: alloc("stopIds", [Math.max(1, model.stopIds.length)]),
    progress: alloc("progress", [items, 2 + beams]),
    choice: alloc("choice", [rows, 2]),
    cursors: alloc("cursors", [rows, 4]),
    table: alloc("table", [rows, tokens + newRows]),
    seen: alloc("seen", [rows, Math.ceil(model.vocabulary / 32)]),
    history: alloc("history", [rows, newRows]),
    ended: alloc("ended", [rows, endedHead + newRows]),
  };
  const sampling = buckets.ids === "drawn" ? alloc("sampling", [items, samplingWidth]) : null;
  const givenIds = buckets.ids === "given" ? alloc("given ids", [rows, newRows]) : null;
  const choose = (k: Recorder, logits: Tensor) => {
    if (sampling) chooseByChance(k, state, sampling, logits);
    else if (givenIds) followGiven(k, state, givenIds, logits);
    else if (beams === 1) chooseGreedily(k, state, logits);
    else chooseByBeams(k, state, logits, keptPerBeam(model) * beams);
  };
  const contexts = model.idsBehindContext === undefined ? null : alloc("contexts", [rows]);
  const { table } = state;
  const made: Recording[] = [];
  const destroy = () => {
    for (const list of made) list.destroy();
    for (const tensor of tensors) gpu.free(tensor);
  };
  const recordAll = async <Rows>(parts: readonly ModelPart<Rows>[], rowCount: number, given: Rows) => {
    const memoryRows = items * perItem.memory;
    const sized = parts.map((part) => ({ cost: part.cost(rowCount, items, memoryRows), run: part.run }));
    const groups = submits(sized, 1, mostOperations);
    const lists: Recording[] = [];
    let x: Tensor | null = null;
    for (const [i, group] of groups.entries()) {
      const before: Tensor | null = x;
      const list: Recording<Tensor | null> = await gpu.record(`generate ${items} x ${beams}`, (k) => {
        const y = group.reduce((tensor, part) => part.run(k, tensor, given), before);
        if (i < groups.length - 1 || y === null) return y;
        choose(k, y);
        return null;
      });
      made.push(list);
      lists.push(list);
      x = list.result;
    }
    return lists;
  };
  try {
    await gpu.upload(state.stopIds, bytesOf(Uint32Array.from(model.stopIds)));
    const promptRows = {
      cursors: promptCursors,
      table,
      cache,
      prompt,
      lastRows,
      ...(memory && { memory: memory.making }),
      ...(contexts && { contexts }),
    };
    const first = await recordAll(model.promptParts, items * tokens, promptRows);
    const behindMemory = model.promptParts.slice(model.memory?.parts);
    const again = givenIds && model.memory ? await recordAll(behindMemory, items * tokens, promptRows) : first;
    const next = await recordAll(model.tokenParts, rows, {
      cursors: state.cursors,
      table,
      cache,
      ...(memory && { memory: memory.reading }),
      ...(contexts && { contexts }),
    });
    const prompts = { prompt, promptCursors, lastRows, tokens, itemStride, memory, sampling, givenIds, contexts };
    return {
      items,
      buckets,
      state,
      first,
      again,
      next,
      load: (given) => loadRows(gpu, model, state, prompts, given),
      destroy,
    };
  } catch (error) {
    destroy();
    throw error;
  }
}

/** logits (items, vocabulary) -> the highest id of each row, and everything moved on by one */
function chooseGreedily(k: Recorder, state: DecodeState, logits: Tensor): void {
  greedyStep(k, greedyScores(k, logits, state, vocabularyChunks(state.vocabulary, 1)), state);
  advance(k, state);
}

/** logits (items, vocabulary) -> an id of each row drawn, and everything moved on by one */
function chooseByChance(k: Recorder, state: DecodeState, sampling: Tensor, logits: Tensor): void {
  const cut = vocabularyChunks(state.vocabulary, 1);
  const made = sampleScores(k, logits, state, sampling, cut);
  const limits = sampleLimits(k, made, sampling);
  greedyStep(k, sampleBest(k, made.scores, limits, state, sampling, cut), state);
  advance(k, state);
}

/** logits (rows or items, vocabulary) -> the given ids' log-probabilities summed, and everything moved on by one */
function followGiven(k: Recorder, state: DecodeState, givenIds: Tensor, logits: Tensor): void {
  const partials = logSumExp(k, logits, vocabularyChunks(state.vocabulary, state.beams));
  givenStep(k, logits, partials, givenIds, state);
  advance(k, state);
}

/** logits (rows or items, vocabulary) -> the beams of each item, and everything moved on by one */
function chooseByBeams(k: Recorder, state: DecodeState, logits: Tensor, keep: number): void {
  const cut = vocabularyChunks(state.vocabulary, state.beams);
  const scores = beamScores(k, logits, logSumExp(k, logits, cut), state, cut);
  beamStep(k, beamCandidates(k, scores, state.beams, keep, cut), state);
  advance(k, state);
}

interface PromptTensors {
  readonly prompt: Tensor;
  readonly promptCursors: Tensor;
  readonly lastRows: Tensor;
  readonly tokens: number;
  readonly itemStride: number;
  readonly memory: MemoryTensors | null;
  /** Where ids are drawn. */
  readonly sampling: Tensor | null;
  /** Where ids are given. */
  readonly givenIds: Tensor | null;
  /** Where sequences have contexts. */
  readonly contexts: Tensor | null;
}

/** What a beam that does not exist yet scores, and an end that nobody reached. */
const hopeless = -1e9;

async function loadRows(
  gpu: Gpu,
  model: LanguageModel,
  state: DecodeState,
  { prompt, promptCursors, lastRows, tokens, itemStride, memory, sampling, givenIds, contexts }: PromptTensors,
  given: readonly GenerateRow[],
): Promise<void> {
  const { items, beams, newRows } = state;
  const width = (tensor: Tensor) => tensor.shape[1] ?? 0;
  const cursors = wordsFor(promptCursors).fill(none);
  const last = wordsFor(lastRows);
  const settings = wordsFor(state.settings);
  const progress = wordsFor(state.progress);
  const table = wordsFor(state.table);
  const seen = wordsFor(state.seen);
  const ended = wordsFor(state.ended);
  for (let item = 0; item < items; item++) {
    const row = given[item];
    const length = row ? promptLength(model, row) : 0;
    const ids = row ? firstIds(model, row) : [];
    const positions = Array.from({ length }, (_, t) => (row ? positionOfRow(model, row, t) : t));
    for (let t = 0; t < tokens; t++) {
      const at = item * tokens + t;
      const token = t < model.queries ? none : (ids[t - model.queries] ?? none);
      // A padding row has no position and no slot, but a sequence inside the table.
      cursors.set(t < length ? [token, positions[t] ?? none, at, item * beams] : [none, none, none, 0], 4 * at);
    }
    last[item] = item * tokens + Math.max(0, length - 1);
    settings.set(row ? settingsOf(row, length, newRows) : [], item * width(state.settings));
    progress.set(
      [0, row ? 0 : 1, ...(givenIds ? new Array(beams).fill(0) : runningAtStart(beams))],
      item * (2 + beams),
    );
    for (let beam = 0; beam < beams; beam++) {
      const at = item * beams + beam;
      for (const [t, position] of positions.entries()) table[at * width(state.table) + position] = item * tokens + t;
      for (const id of row ? seenBefore(model, row) : []) {
        const word = at * width(state.seen) + (id >> 5);
        seen[word] = (seen[word] ?? 0) | (1 << (id & 31));
      }
      ended.set([0, floatBits(hopeless), 0], at * (endedHead + newRows));
    }
    if (row) await gpu.upload(prompt, row.prompt.bytes, item * itemStride * (prompt.type === "f16" ? 2 : 4));
  }
  const uploads: [Tensor, Uint32Array][] = [
    [promptCursors, cursors],
    [lastRows, last],
    [state.settings, settings],
    [state.progress, progress],
    [state.cursors, wordsFor(state.cursors).fill(none)],
    [state.table, table],
    [state.seen, seen],
    [state.ended, ended],
    ...(memory ? memoryWords(memory, model, given) : []),
  ];
  if (sampling) {
    const words = wordsFor(sampling);
    for (const [item, row] of given.entries()) words.set(samplingWords(row), item * samplingWidth);
    uploads.push([sampling, words]);
  }
  if (contexts) {
    const words = wordsFor(contexts).fill(1);
    for (const [item, row] of given.entries()) {
      const context = promptLength(model, row) - (model.idsBehindContext ?? 0);
      words.fill(context, item * beams, (item + 1) * beams);
    }
    uploads.push([contexts, words]);
  }
  if (givenIds) {
    const words = wordsFor(givenIds).fill(none);
    for (const [item, row] of given.entries()) {
      for (const [beam, ids] of (row.given ?? []).entries()) words.set(ids, (item * beams + beam) * newRows);
    }
    uploads.push([givenIds, words]);
  }
  for (const [tensor, words] of uploads) await gpu.upload(tensor, bytesOf(words));
}

/** The ids that count as seen before the first step. */
function seenBefore(model: LanguageModel, row: GenerateRow): readonly number[] {
  if (row.generation.repetitionPenaltyScope === "new") return [];
  const ids = firstIds(model, row);
  return model.imageId === null ? ids : [model.imageId, ...ids];
}

/** A row of `settings`: the divisors are powers in f64, rounded once to f32. */
function settingsOf({ generation }: GenerateRow, length: number, newRows: number): number[] {
  const { maxNewTokens, minNewTokens, repetitionPenalty, lengthPenalty } = generation;
  const divisors = Array.from({ length: newRows }, (_, i) => floatBits((i + 1) ** lengthPenalty));
  return [maxNewTokens, minNewTokens, floatBits(repetitionPenalty), length, ...divisors];
}

/** Only beam 0 exists at first. */
function runningAtStart(beams: number): number[] {
  return Array.from({ length: beams }, (_, beam) => floatBits(beam === 0 ? 0 : hopeless));
}

/** The bits of a number as f32. */
function floatBits(value: number): number {
  return new Uint32Array(Float32Array.of(value).buffer)[0] ?? 0;
}

function bytesOf(words: Uint32Array): Uint8Array {
  return new Uint8Array(words.buffer, words.byteOffset, words.byteLength);
}
