// Ranking: how likely given texts are after a prompt, as sums of log-probabilities of their ids. The texts of a row are
// the beams of one item: they share its prompt, which is read once.

import type { Gpu } from "../gpu/device.ts";
import type { Recording } from "../gpu/recording.ts";
import { bucket, type Lease, RecordingCache, recordingKey } from "../gpu/recording-cache.ts";
import type { Batch, RowProgram } from "../gpu/row-program.ts";
import { type Activation, defaultGeneration, mostBeams } from "../stages.ts";
import { type DecodeMachine, makeDecodeMachine } from "./decode-machine.ts";
import { GenerationError } from "./errors.ts";
import {
  bucketsOf,
  checkGenerateRow,
  type GenerateBuckets,
  type GenerateRow,
  keyOfBuckets,
  maxGenerateRows,
} from "./generate-row.ts";
import type { LanguageModel } from "./language-model.ts";

export interface RankRow {
  /** As of generate. */
  readonly prompt: Activation;
  /** As of generate. */
  readonly textIds: readonly number[];
  /** Ids of 1 to `mostAnswers` texts that may follow, without the id that ends them. */
  readonly answers: readonly (readonly number[])[];
}

/** Most texts of one row. */
export const mostAnswers = mostBeams;

/** Machines kept, idle ones too. */
const keptMachines = 2;

/**
 * The rank program of one language model. A row's result: for each text the sum over its ids, and the id that ends it,
 * of log softmax(logits)[id].
 */
export function rankProgram(gpu: Gpu, model: LanguageModel): RowProgram<RankRow, number[]> & { close(): void } {
  const machines = new RecordingCache<DecodeMachine>(keptMachines);
  return {
    name: "rank",
    maxRows: (key) => maxGenerateRows(gpu, model, key),
    key: (row) => keyOfBuckets(rankBuckets(row)),
    start: (rows) => startRank(gpu, model, rows, machines),
    close: () => machines.destroy(),
  };
}

/** Steps of a row: its longest text, and the end. */
function longest({ answers }: RankRow): number {
  return Math.max(...answers.map((ids) => ids.length)) + 1;
}

/** What generate would be asked to do in as many steps. */
function asGenerate(row: RankRow): GenerateRow {
  const { prompt, textIds, answers } = row;
  const generation = { ...defaultGeneration, maxNewTokens: longest(row), numBeams: answers.length };
  return { prompt, textIds, generation };
}

function rankBuckets(row: RankRow): GenerateBuckets {
  return { ...bucketsOf(asGenerate(row)), ids: "given" };
}

/** @throws GenerationError */
function checkRankRow(model: LanguageModel, row: RankRow): void {
  const { answers } = row;
  if (answers.length < 1 || answers.length > mostAnswers) {
    throw new GenerationError(`rank: expected 1 to ${mostAnswers} texts, got ${answers.length}`);
  }
  if (model.stopIds.length === 0)
    throw new GenerationError("rank: expected a model with an id that ends a text, got none");
  const badId = answers.flat().find((id) => !Number.isInteger(id) || id < 0 || id >= model.vocabulary);
  if (badId !== undefined) {
    throw new GenerationError(`rank: expected ids below the vocabulary's ${model.vocabulary}, got ${badId}`);
  }
  checkGenerateRow(model, asGenerate(row));
}

function startRank(
  gpu: Gpu,
  model: LanguageModel,
  rows: readonly RankRow[],
  machines: RecordingCache<DecodeMachine>,
): Batch<number[]> {
  for (const row of rows) checkRankRow(model, row);
  const [head] = rows;
  if (head === undefined) throw new GenerationError("rank: expected rows, got none");
  const [end = 0] = model.stopIds;
  let lease: Lease<DecodeMachine> | undefined;
  let pending: Recording[] = [];

  const begin = async (): Promise<Lease<DecodeMachine>> => {
    const items = bucket(rows.length);
    const buckets = rankBuckets(head);
    const made = await machines.acquire(recordingKey(keyOfBuckets(buckets), { rows: items }), () =>
      makeDecodeMachine(gpu, model, items, buckets),
    );
    lease = made;
    const { first, next } = made.value;
    await made.value.load(rows.map((row) => ({ ...asGenerate(row), given: row.answers.map((ids) => [...ids, end]) })));
    const steps = Math.max(...rows.map(longest));
    pending = [...first, ...new Array<readonly Recording[]>(steps - 1).fill(next).flat()];
    return made;
  };

  return {
    async step() {
      const { state } = (lease ?? (await begin())).value;
      const lists = pending.splice(0, 1);
      if (pending.length > 0) {
        await gpu.submit(lists);
        return [];
      }
      const [progress] = await gpu.submit(lists, { reads: [state.progress] });
      const sums = new Float32Array(progress as ArrayBuffer);
      return rows.map((_, row) => {
        const value = [...sums.subarray(row * (2 + state.beams) + 2, (row + 1) * (2 + state.beams))];
        if (!value.some(Number.isNaN)) return { row, value };
        const error = new GenerationError("rank: expected logits that are numbers, got NaN; the weights may be broken");
        return { row, error };
      });
    },
    release: () => lease?.release(),
  };
}
