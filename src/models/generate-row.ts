// One row of generate: what it asks for, whether the model can serve it, and with which rows it may share a batch.

import type { Gpu } from "../gpu/device.ts";
import { byteLength } from "../gpu/tensor.ts";
import { type Activation, type Generation, mostBeams } from "../stages.ts";
import { GenerationError } from "./errors.ts";
import type { LanguageModel } from "./language-model.ts";

export interface GenerateRow {
  /** What the model's `prompt` says. */
  readonly prompt: Activation;
  /** Specials included, image slots excluded: what the sequence begins with, or what the model's encoder reads. */
  readonly textIds: readonly number[];
  readonly generation: Generation;
  /** Hex SHA-256 of the image file's bytes; doSample needs it. */
  readonly image?: string;
  /** Ids to follow, one list per beam, where they are given; see rank.ts. */
  readonly given?: readonly (readonly number[])[];
}

/** Sizes that a recording is made for; true lengths are at most these and lie in GPU buffers. */
export interface GenerateBuckets {
  readonly beams: number;
  /** Of greedy and beam search, of sampling, or given with the row. */
  readonly ids: "searched" | "drawn" | "given";
  readonly textRows: number;
  readonly newRows: number;
  readonly promptType: "f32" | "f16";
}

/** The smallest buckets. */
export interface LeastBuckets {
  readonly textRows: number;
  readonly newRows: number;
}

/**
 * Of rows that take each other's places: a step costs what its rows' true lengths cost, so that buckets are wide and most
 * rows share one; they set no more than how much cache an item has.
 */
const sharedLeast: LeastBuckets = { textRows: 32, newRows: 32 };
/** Of rows that are read whole, padding included. */
export const closeLeast: LeastBuckets = { textRows: 4, newRows: 8 };

/** Below it a score would not be a number of f32 that means anything; transformers takes every positive one. */
const leastTemperature = 1e-6;
/** What f32 counts exactly, and more than any vocabulary. */
const mostTopK = 2 ** 24;

/** Candidates per beam and step: enough for `beams` that go on when every beam offers each id that ends. */
export function keptPerBeam(model: LanguageModel): number {
  return Math.max(2, 1 + model.stopIds.length);
}

/** The ids that a row's sequence begins with, image slots excluded. */
export function firstIds(model: LanguageModel, row: GenerateRow): readonly number[] {
  if (model.slotsAmongIds) return row.textIds.toSpliced(idsBeforeSlots(model, row), 1);
  return model.memory?.encoder?.start ?? row.textIds;
}

/** How many of them have positions in front of the image slots. */
function idsBeforeSlots(model: LanguageModel, { textIds }: GenerateRow): number {
  return model.slotsAmongIds ? textIds.indexOf(model.imageId ?? 0) : 0;
}

/** The position of a row of a sequence's beginning, where rows are image slots, then ids. */
export function positionOfRow(model: LanguageModel, row: GenerateRow, index: number): number {
  const before = idsBeforeSlots(model, row);
  if (index < model.queries) return before + index;
  return index < model.queries + before ? index - model.queries : index;
}

/** Image slots and the ids behind them. */
export function promptLength(model: LanguageModel, row: GenerateRow): number {
  return model.queries + firstIds(model, row).length;
}

/** Rows of one item under these buckets, padding included. */
export interface ItemRows {
  /** Image slots and the ids that the sequence begins with. */
  readonly sequence: number;
  /** Of text that an encoder reads. */
  readonly encoder: number;
  readonly memory: number;
}

export function itemRows(
  { queries, memory }: LanguageModel,
  { textRows }: Pick<GenerateBuckets, "textRows">,
): ItemRows {
  const encoder = memory?.encoder;
  return {
    sequence: queries + (encoder ? encoder.start.length : textRows),
    encoder: encoder ? textRows : 0,
    memory: memory ? memory.rows(textRows) : 0,
  };
}

/** Rows of one item that are read before its first step: everything but the last id, which is the first step's. */
export function rowsAhead(model: LanguageModel, textRows: number): ItemRows {
  const encoder = model.memory?.encoder;
  if (encoder) return { ...itemRows(model, { textRows }), sequence: encoder.start.length - 1 };
  return { sequence: model.queries + textRows, encoder: 0, memory: model.memory?.rows(textRows + 1) ?? 0 };
}

/** The `textRows` that rowsAhead needs for this row, a bucket: of what an encoder reads, else of all ids but the last. */
export function textAhead(model: LanguageModel, row: GenerateRow): number {
  const count = model.memory?.encoder ? row.textIds.length : firstIds(model, row).length - 1;
  return count === 0 ? 0 : bucket(count, closeLeast.textRows);
}

/**
 * Before anything is queued.
 * @throws GenerationError naming the setting, what is allowed and what was given.
 */
export function checkGenerateRow(model: LanguageModel, row: GenerateRow): void {
  const { prompt, textIds, generation } = row;
  const { maxNewTokens, minNewTokens, numBeams, lengthPenalty, repetitionPenalty } = generation;
  const expect: Expect = (holds, what, expected, got) => {
    if (!holds) throw new GenerationError(`${what}: expected ${expected}, got ${got}`);
  };
  const { kind, shape } = model.prompt;
  expect(
    prompt.kind === kind && prompt.shape[0] === shape[0] && prompt.shape[1] === shape[1],
    "generate",
    `${kind} (${shape.join(", ")})`,
    `${prompt.kind} (${prompt.shape.join(", ")})`,
  );
  const bytes = shape[0] * shape[1] * (prompt.type === "f16" ? 2 : 4);
  expect(prompt.bytes.length === bytes, "generate", `${bytes} bytes of ${prompt.type} ${kind}`, prompt.bytes.length);
  const badId = textIds.find((id) => !Number.isInteger(id) || id < 0 || id >= model.vocabulary);
  expect(badId === undefined, "generate", `text ids below the vocabulary's ${model.vocabulary}`, badId);
  expect(
    Number.isInteger(numBeams) && numBeams >= 1 && numBeams <= mostBeams,
    "numBeams",
    `1 to ${mostBeams}`,
    numBeams,
  );
  expect(
    model.vocabulary >= keptPerBeam(model),
    "generate",
    `a vocabulary of at least ${keptPerBeam(model)} ids`,
    model.vocabulary,
  );
  expect(Number.isInteger(maxNewTokens) && maxNewTokens >= 1, "maxNewTokens", "at least 1", maxNewTokens);
  expect(Number.isInteger(minNewTokens) && minNewTokens >= 0, "minNewTokens", "at least 0", minNewTokens);
  expect(Number.isFinite(lengthPenalty), "lengthPenalty", "a finite number", lengthPenalty);
  expect(
    Number.isFinite(repetitionPenalty) && repetitionPenalty > 0,
    "repetitionPenalty",
    "a finite number above 0",
    repetitionPenalty,
  );
  expect(
    ["all", "new"].includes(generation.repetitionPenaltyScope),
    "repetitionPenaltyScope",
    '"all" or "new"',
    generation.repetitionPenaltyScope,
  );
  checkSampling(row, expect);
  if (model.slotsAmongIds) {
    const places = textIds.filter((id) => id === model.imageId).length;
    expect(
      places === 1,
      "generate",
      `id ${model.imageId} once among the ids, where the image is`,
      `it ${places} times`,
    );
  }
  const encoder = model.memory?.encoder;
  expect(textIds.length >= 1, "generate", "at least one id of text", textIds.length);
  if (encoder) {
    expect(
      textIds.length <= encoder.maxTextIds,
      "generate",
      `at most ${encoder.maxTextIds} ids of text`,
      `${textIds.length}; shorten the text`,
    );
  }
  const positions = promptLength(model, row) + maxNewTokens;
  expect(
    positions <= model.maxPositions,
    "generate",
    `at most ${model.maxPositions} positions of image slots, text and new ids`,
    `${positions} (${model.queries} + ${firstIds(model, row).length} + ${maxNewTokens}); ` +
      `lower --max-new-tokens${encoder ? "" : " or shorten the prompt"}`,
  );
}

type Expect = (holds: boolean, what: string, expected: string, got: unknown) => void;

function checkSampling({ generation, image }: GenerateRow, expect: Expect): void {
  const { doSample, temperature, topK, topP, seed, numBeams, stopStrings } = generation;
  const areTexts = Array.isArray(stopStrings) && stopStrings.every((text) => typeof text === "string" && text !== "");
  expect(areTexts, "stopStrings", "a list of texts that are not empty", JSON.stringify(stopStrings));
  expect(numBeams === 1 || stopStrings.length === 0, "stopStrings", "no beams (numBeams 1) beside them", numBeams);
  if (!doSample) return;
  expect(numBeams === 1, "doSample", "no beams (numBeams 1): there is no beam sampling", numBeams);
  expect(
    Number.isFinite(temperature) && temperature >= leastTemperature,
    "temperature",
    `a finite number of at least ${leastTemperature} (without doSample the likeliest id is taken)`,
    temperature,
  );
  expect(Number.isInteger(topK) && topK >= 0 && topK <= mostTopK, "topK", `a whole number from 0 to ${mostTopK}`, topK);
  expect(topP >= 0 && topP <= 1, "topP", "a number from 0 to 1", topP);
  expect(Number.isSafeInteger(seed) && seed >= 0, "seed", "a whole number from 0 to 2^53 - 1", seed);
  expect(image !== undefined, "doSample", "the digest of the image, which the draws depend on", image);
}

/** The smallest power of two that is at least `count` and `least`. */
function bucket(count: number, least: number): number {
  return Math.max(least, 2 ** Math.ceil(Math.log2(Math.max(1, count))));
}

/** @param least what the buckets begin with; left out: those of rows that take each other's places */
export function bucketsOf(row: GenerateRow, least = sharedLeast): GenerateBuckets {
  return {
    beams: row.generation.numBeams,
    ids: row.generation.doSample ? "drawn" : "searched",
    textRows: bucket(row.textIds.length, least.textRows),
    newRows: bucket(row.generation.maxNewTokens, least.newRows),
    promptType: row.prompt.type,
  };
}

/** Rows of equal keys may share a batch; everything else about a row lies in GPU buffers. */
export function generateKey(row: GenerateRow): string {
  return keyOfBuckets(bucketsOf(row));
}

const keyWords = { searched: "beams", drawn: "drawn", given: "given" } as const;

export function keyOfBuckets({ beams, ids, textRows, newRows, promptType }: GenerateBuckets): string {
  return `${keyWords[ids]} ${beams}, text ${textRows}, new ${newRows}, ${promptType}`;
}

/** The buckets that a key was made of. */
export function bucketsOfKey(key: string): GenerateBuckets {
  const [, word, beams, textRows, newRows, promptType] =
    /^(beams|drawn|given) (\d+), text (\d+), new (\d+), (f32|f16)$/.exec(key) ?? [];
  if (promptType !== "f32" && promptType !== "f16") {
    throw new GenerationError(`generate: expected a key of generateKey(), got ${JSON.stringify(key)}`);
  }
  const ids = word === "given" ? word : word === "drawn" ? word : "searched";
  return { beams: Number(beams), ids, textRows: Number(textRows), newRows: Number(newRows), promptType };
}

/** Cache rows that a batch of `items` needs: one per prompt position and item, one per new position and row. */
export function cacheSlots(model: LanguageModel, items: number, buckets: GenerateBuckets): number {
  return items * itemRows(model, buckets).sequence + items * buckets.beams * buckets.newRows;
}

/** Elements from one cache row to the next: whole words under f16. */
export function cacheStride(model: LanguageModel): number {
  return model.cache.type === "f16" ? Math.ceil(model.cache.width / 2) * 2 : model.cache.width;
}

/** Most items of one batch where memory allows; more does not make a step cheaper per item on CPU drivers. */
const mostItems = { software: 8, gpu: 16 } as const;

/** Most rows (a power of two, at least 1) whose logits, prompts, caches, memory and activations each fit one binding. */
export function maxGenerateRows(
  gpu: Pick<Gpu, "bindingLimit" | "softwareAdapter">,
  model: LanguageModel,
  key: string,
): number {
  const buckets = bucketsOfKey(key);
  const { sequence, encoder, memory } = itemRows(model, buckets);
  const itemMost = Math.max(sequence, encoder, memory, model.prompt.shape[0]);
  const fits = (items: number) => {
    const rows = items * buckets.beams;
    const cacheRows = Math.max(cacheSlots(model, items, buckets), items * memory);
    return [
      byteLength([rows, model.vocabulary], "f32"),
      byteLength([cacheRows, cacheStride(model)], model.cache.type),
      byteLength([Math.max(rows, items * itemMost), model.widest], "f32"),
    ].every((bytes) => bytes <= gpu.bindingLimit);
  };
  let items: number = gpu.softwareAdapter ? mostItems.software : mostItems.gpu;
  while (items > 1 && !fits(items)) items /= 2;
  return items;
}
