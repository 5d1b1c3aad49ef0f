// The GPU side of one batch under way: state buffers, caches, and the recorded lists that are replayed. Its items are places
// that rows take and leave while the others go on.

import type { Gpu } from "../gpu/device.ts";
import type { Recorder } from "../gpu/recorder.ts";
import type { Recording } from "../gpu/recording.ts";
import { bucket } from "../gpu/recording-cache.ts";
import { type ElementType, elementCount, type Tensor } from "../gpu/tensor.ts";
import { view } from "../gpu/view.ts";
import { advance } from "../kernels/advance.ts";
import type { LayerCache } from "../kernels/append-cache.ts";
import { beamCandidates } from "../kernels/beam-candidates.ts";
import { beamScores } from "../kernels/beam-scores.ts";
import { beamStep } from "../kernels/beam-step.ts";
import { type DecodeState, endedHead, samplingWidth, settingsHead } from "../kernels/decode-state.ts";
import { givenStep } from "../kernels/given-step.ts";
import { greedyScores } from "../kernels/greedy-scores.ts";
import { greedyStep } from "../kernels/greedy-step.ts";
import { logSumExp } from "../kernels/log-sum-exp.ts";
import { sampleBest } from "../kernels/sample-best.ts";
import { sampleLimits } from "../kernels/sample-limits.ts";
import { sampleScores } from "../kernels/sample-scores.ts";
import { vocabularyChunks } from "../kernels/vocabulary-chunks.ts";
import { makingOf, makingWords, memoryTensors, type Placed, type Words } from "./decode-memory.ts";
import { emptyWords, itemWords, promptWords, type Reading, type StateTensors } from "./decode-words.ts";
import {
  cacheSlots,
  cacheStride,
  type GenerateBuckets,
  itemRows,
  keptPerBeam,
  rowsAhead,
  textAhead,
} from "./generate-row.ts";
import type { LanguageModel, ModelPart, PromptRows } from "./language-model.ts";
import { operationsPerSubmit, submits } from "./staged-program.ts";

export interface DecodeMachine {
  readonly items: number;
  readonly buckets: GenerateBuckets;
  readonly state: DecodeState;
  /** Read the last ids and choose the next one of every row; more than one where one submit would take too long. */
  readonly next: readonly Recording[];
  /** No item has a row. Called before the first load of a batch. */
  clear(): Promise<void>;
  /**
   * Give items rows, whatever they had before. The others' state is not touched, so that they may be under way.
   * @param keepsMemory where ids are given: the rows' prompts are those that these items had before
   * @returns what reads their prompts, to be submitted once, in this order, before the next step. Their last ids are left to
   * that step, which chooses their first new ones; but where ids are given, all rows of the machine are read whole, and the
   * first step is done with it.
   */
  load(placed: readonly Placed[], options?: { readonly keepsMemory?: boolean }): Promise<readonly Recording[]>;
  /**
   * The rows of a machine of the same buckets and fewer items go on here, each at the same item; called right after clear().
   */
  takeOver(smaller: DecodeMachine): void;
  /** What there is of each item, as much of one as of another, item by item. */
  readonly itemTensors: readonly Tensor[];
  /** The item has no row any more; steps do next to nothing for it. */
  stop(item: number): Promise<void>;
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
    promptSlots: tokens,
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
  const contexts = model.idsBehindContext === undefined ? null : alloc("contexts", [rows]);
  const parts: StateTensors = { state, memory, sampling, givenIds, contexts };
  const choose = (k: Recorder, logits: Tensor) => {
    if (sampling) chooseByChance(k, state, sampling, logits);
    else if (givenIds) followGiven(k, state, givenIds, logits);
    else if (beams === 1) chooseGreedily(k, state, logits);
    else chooseByBeams(k, state, logits, keptPerBeam(model) * beams);
  };
  const made: Recording[] = [];
  const destroy = () => {
    for (const list of made) list.destroy();
    for (const tensor of tensors) gpu.free(tensor);
  };

  /** @param count of rows, items and rows of memory @param finish what is done with what the last part returned */
  const recordAll = async <Rows>(
    modelParts: readonly ModelPart<Rows>[],
    count: readonly [rows: number, items: number, memoryRows: number],
    given: Rows,
    finish: (k: Recorder, y: Tensor) => void,
  ) => {
    const sized = modelParts.map((part) => ({ cost: part.cost(...count), run: part.run }));
    const groups = submits(sized, 1, mostOperations);
    const lists: Recording[] = [];
    let x: Tensor | null = null;
    for (const [i, group] of groups.entries()) {
      const before: Tensor | null = x;
      const list: Recording<Tensor | null> = await gpu.record(`generate ${count[1]} x ${beams}`, (k) => {
        const y = group.reduce((tensor, part) => part.run(k, tensor, given), before);
        if (i < groups.length - 1 || y === null) return y;
        finish(k, y);
        return null;
      });
      made.push(list);
      lists.push(list);
      x = list.result;
    }
    return lists;
  };

  const recordReading = ({ count, sizes, isWhole, keepsMemory }: Reading): Promise<readonly Recording[]> => {
    const given: PromptRows = {
      cursors: view(promptCursors, [count * sizes.sequence, 4]),
      table: state.table,
      cache,
      prompt: view(prompt, [count, itemStride]),
      lastRows: view(lastRows, [count]),
      ...(memory && { memory: makingOf(memory, count, sizes) }),
      ...(contexts && { contexts }),
    };
    const of = [count * sizes.sequence, count, count * sizes.memory] as const;
    const all = model.promptParts;
    if (isWhole) return recordAll(keepsMemory ? all.slice(model.memory?.parts) : all, of, given, choose);
    // The last part gives logits, which only a step asks for.
    return recordAll(all.slice(0, sizes.sequence > 0 ? -1 : (model.memory?.parts ?? 0)), of, given, () => {});
  };
  const readings = new Map<string, readonly Recording[]>();
  const listsFor = async (reading: Reading): Promise<readonly Recording[]> => {
    const key = JSON.stringify(reading);
    const lists = readings.get(key) ?? (await recordReading(reading));
    readings.set(key, lists);
    return lists;
  };

  const load: DecodeMachine["load"] = async (placed, { keepsMemory = false } = {}) => {
    const isWhole = givenIds !== null;
    const count = isWhole ? items : bucket(placed.length);
    const text = Math.max(...placed.map(([, row]) => textAhead(model, row)));
    const sizes = isWhole ? perItem : rowsAhead(model, text);
    const reading = { count, sizes, isWhole, keepsMemory: keepsMemory && memory !== null };
    const words = [
      ...promptWords(model, state, { promptCursors, lastRows }, reading, placed),
      ...(memory ? makingWords(memory, model, count, sizes, placed) : []),
    ];
    // All buffers here begin with what is read: places, one after another.
    for (const [tensor, values] of words) if (values.length > 0) await gpu.upload(tensor, bytesOf(values));
    const promptBytes = itemStride * (promptType === "f16" ? 2 : 4);
    for (const [place, [item, row]] of placed.entries()) {
      await gpu.upload(prompt, row.prompt.bytes, place * promptBytes);
      for (const own of itemWords(model, parts, [item, row])) await writeItem(gpu, items, item, own);
    }
    return await listsFor(reading);
  };

  try {
    await gpu.upload(state.stopIds, bytesOf(Uint32Array.from(model.stopIds)));
    if (memory) {
      const slots = Uint32Array.from({ length: elementCount(memory.making.table.shape) }, (_, i) => i);
      await gpu.upload(memory.making.table, bytesOf(slots));
    }
    const next = await recordAll(
      model.tokenParts,
      [rows, items, items * perItem.memory],
      {
        cursors: state.cursors,
        table: state.table,
        cache,
        ...(memory && { memory: memory.reading }),
        ...(contexts && { contexts }),
      },
      choose,
    );
    const stop = async (item: number) => {
      for (const own of emptyWords(parts)) await writeItem(gpu, items, item, own);
    };
    const clear = async () => {
      for (let item = 0; item < items; item++) await stop(item);
    };
    const { settings, progress, cursors, table, seen, history, ended } = state;
    const caches = [...cache, ...(memory ? memory.making.cache : [])].flatMap(({ keys, values }) => [keys, values]);
    const itemTensors = [settings, progress, cursors, table, seen, history, ended, ...caches];
    for (const tensor of [sampling, givenIds, contexts, memory?.reading.cursors]) if (tensor) itemTensors.push(tensor);
    const takeOver = (smaller: DecodeMachine) =>
      gpu.copy(smaller.itemTensors.map((tensor, i) => [tensor, itemTensors[i] as Tensor]));
    return { items, buckets, state, next, clear, load, takeOver, itemTensors, stop, destroy };
  } catch (error) {
    destroy();
    throw error;
  }
}

/** The words of one item, of a tensor that has as many of every item. */
async function writeItem(gpu: Gpu, items: number, item: number, [tensor, words]: Words): Promise<void> {
  await gpu.upload(tensor, bytesOf(words), (item * elementCount(tensor.shape) * 4) / items);
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

/** logits (rows, vocabulary) -> the beams of each item, and everything moved on by one */
function chooseByBeams(k: Recorder, state: DecodeState, logits: Tensor, keep: number): void {
  const cut = vocabularyChunks(state.vocabulary, state.beams);
  const scores = beamScores(k, logits, logSumExp(k, logits, cut), state, cut);
  beamStep(k, beamCandidates(k, scores, state.beams, keep, cut), state);
  advance(k, state);
}

function bytesOf(words: Uint32Array): Uint8Array {
  return new Uint8Array(words.buffer, words.byteOffset, words.byteLength);
}
