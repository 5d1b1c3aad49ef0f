// Ranking: how likely given texts are after a prompt, as sums of log-probabilities of their ids. Up to `mostTogether` texts
// of a row are the beams of one item: they share its prompt. Of an encoder-decoder model all texts of a row share the memory,
// which is made once. Which texts BLIP compares whole: rank_answer of github.com/salesforce/BLIP, models/blip_vqa.py.

import type { Gpu } from "../gpu/device.ts";
import type { Recording } from "../gpu/recording.ts";
import { bucket, type Lease, RecordingCache, recordingKey } from "../gpu/recording-cache.ts";
import type { Batch, RowProgram, RowResult } from "../gpu/row-program.ts";
import { type Activation, defaultGeneration, mostBeams } from "../stages.ts";
import { type DecodeMachine, makeDecodeMachine } from "./decode-machine.ts";
import { GenerationError } from "./errors.ts";
import {
  bucketsOf,
  checkGenerateRow,
  closeLeast,
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
  /**
   * Only so many texts are compared whole, at least one: those whose first ids are the likeliest, of equal ones the earlier.
   * Left out: all.
   */
  readonly keep?: number;
}

/** Most texts of one row: more than any list of answers that models were evaluated with. */
export const mostAnswers = 16_384;

/** Texts that are read together. */
const mostTogether = mostBeams;

/** Machines kept, idle ones too. */
const keptMachines = 2;

/**
 * The rank program of one language model. A row's result: for each text the sum over its ids, and the id that ends it,
 * of log softmax(logits)[id]; null for a text that was not kept.
 */
export function rankProgram(
  gpu: Gpu,
  model: LanguageModel,
): RowProgram<RankRow, (number | null)[]> & { close(): void } {
  const machines = new RecordingCache<DecodeMachine>(keptMachines);
  return {
    name: "rank",
    maxRows: (key) => maxGenerateRows(gpu, model, key),
    key: (row) => keyOfBuckets(rankBuckets(row)),
    start: (rows) => startRank(gpu, model, rows, machines),
    close: () => machines.destroy(),
  };
}

/** What generate would be asked to do in as many steps as the longest text, and its end, need. */
function asGenerate({ prompt, textIds, answers }: RankRow): GenerateRow {
  const maxNewTokens = answers.reduce((most, ids) => Math.max(most, ids.length), 0) + 1;
  const generation = { ...defaultGeneration, maxNewTokens, numBeams: Math.min(mostTogether, answers.length) };
  return { prompt, textIds, generation };
}

function rankBuckets(row: RankRow): GenerateBuckets {
  return { ...bucketsOf(asGenerate(row), closeLeast), ids: "given" };
}

/** @throws GenerationError */
function checkRankRow(model: LanguageModel, row: RankRow): void {
  const { answers, keep } = row;
  if (answers.length < 1 || answers.length > mostAnswers) {
    throw new GenerationError(`rank: expected 1 to ${mostAnswers} texts, got ${answers.length}`);
  }
  if (keep !== undefined && !(Number.isInteger(keep) && keep >= 1)) {
    throw new GenerationError(`rank: expected at least one text to keep, got ${keep}`);
  }
  if (model.stopIds.length === 0)
    throw new GenerationError("rank: expected a model with an id that ends a text, got none");
  const badId = answers.flat().find((id) => !Number.isInteger(id) || id < 0 || id >= model.vocabulary);
  if (badId !== undefined) {
    throw new GenerationError(`rank: expected ids below the vocabulary's ${model.vocabulary}, got ${badId}`);
  }
  checkGenerateRow(model, asGenerate(row));
}

/** What one row has compared, and what it wants compared next; a group is read together. */
class Ranking {
  readonly scores: (number | null)[];
  readonly #answers: readonly (readonly number[])[];
  readonly #end: number;
  #groups: readonly (readonly (readonly number[])[])[];
  #take: (sums: readonly number[]) => void;
  #sums: number[] = [];

  constructor({ answers, keep }: RankRow, end: number) {
    this.#answers = answers;
    this.#end = end;
    this.scores = answers.map(() => null);
    this.#groups = [];
    this.#take = () => {};
    if (keep === undefined || keep >= answers.length) this.#compareWhole([...answers.keys()]);
    else this.#compareFirst(keep);
  }

  /** The texts to read next; null: the scores are there. */
  get group(): readonly (readonly number[])[] | null {
    return this.#groups[0] ?? null;
  }

  /** Take in the sums of log-probabilities of the group. */
  add(sums: readonly number[]): void {
    const [group = [], ...rest] = this.#groups;
    this.#sums.push(...sums.slice(0, group.length));
    this.#groups = rest;
    if (rest.length === 0) this.#take(this.#sums);
  }

  #compareFirst(keep: number): void {
    const firstOf = (ids: readonly number[]) => ids[0] ?? this.#end;
    const firsts = [...new Set(this.#answers.map(firstOf))];
    this.#read(
      firsts.map((id) => [id]),
      (sums) => {
        const likelihood = new Map(firsts.map((id, i) => [id, sums[i] ?? Number.NaN]));
        const of = (answer: number) => likelihood.get(firstOf(this.#answers[answer] ?? [])) ?? Number.NaN;
        const likeliest = [...this.#answers.keys()].sort((a, b) => of(b) - of(a) || a - b);
        this.#compareWhole(likeliest.slice(0, keep).sort((a, b) => a - b));
      },
    );
  }

  #compareWhole(kept: readonly number[]): void {
    this.#read(
      kept.map((answer) => [...(this.#answers[answer] ?? []), this.#end]),
      (sums) => {
        for (const [i, answer] of kept.entries()) this.scores[answer] = sums[i] ?? Number.NaN;
      },
    );
  }

  #read(texts: readonly (readonly number[])[], take: (sums: readonly number[]) => void): void {
    const groups = Math.ceil(texts.length / mostTogether);
    this.#groups = Array.from({ length: groups }, (_, i) => texts.slice(i * mostTogether, (i + 1) * mostTogether));
    this.#sums = [];
    this.#take = take;
  }
}

function startRank(
  gpu: Gpu,
  model: LanguageModel,
  rows: readonly RankRow[],
  machines: RecordingCache<DecodeMachine>,
): Batch<(number | null)[], RankRow> {
  for (const row of rows) checkRankRow(model, row);
  const [head] = rows;
  if (head === undefined) throw new GenerationError("rank: expected rows, got none");
  const [end = 0] = model.stopIds;
  const rankings = rows.map((row) => new Ranking(row, end));
  const open = new Set(rows.keys());
  let lease: Lease<DecodeMachine> | undefined;
  let pending: Recording[] = [];

  /** The next group of every row that has one. What the prompts' memory needs is made in the first round. */
  const begin = async (): Promise<DecodeMachine> => {
    const buckets = rankBuckets(head);
    const items = bucket(rows.length);
    const isFirst = lease === undefined;
    lease ??= await machines.acquire(recordingKey(keyOfBuckets(buckets), { rows: items }), () =>
      makeDecodeMachine(gpu, model, items, buckets),
    );
    const machine = lease.value;
    const groups = rankings.map((ranking, row) => (open.has(row) ? (ranking.group ?? []) : []));
    if (isFirst) await machine.clear();
    const asked = rows.map((row, i) => [i, { ...asGenerate(row), given: groups[i] ?? [] }] as const);
    const reading = await machine.load(asked, { keepsMemory: !isFirst });
    const steps = Math.max(...groups.flat().map((ids) => ids.length));
    pending = [...reading, ...new Array<readonly Recording[]>(steps - 1).fill(machine.next).flat()];
    return machine;
  };

  return {
    async step(dropped) {
      for (const row of dropped) open.delete(row);
      if (open.size === 0) return [];
      const machine = pending.length === 0 || lease === undefined ? await begin() : lease.value;
      const { state } = machine;
      const lists = pending.splice(0, 1);
      if (pending.length > 0) {
        await gpu.submit(lists);
        return [];
      }
      const [progress] = await gpu.submit(lists, { reads: [state.progress] });
      const all = new Float32Array(progress as ArrayBuffer);
      const results: RowResult<(number | null)[]>[] = [];
      for (const row of open) {
        const ranking = rankings[row] as Ranking;
        const from = row * (2 + state.beams) + 2;
        const sums = [...all.subarray(from, from + (ranking.group ?? []).length)];
        if (sums.some(Number.isNaN)) {
          const error = new GenerationError(
            "rank: expected finite logits, got NaN; the weights may be broken, or too large for their type: try --dtype f32",
          );
          results.push({ row, error });
        } else {
          ranking.add(sums);
          if (ranking.group === null) results.push({ row, value: ranking.scores });
        }
      }
      for (const { row } of results) open.delete(row);
      return results;
    },
    release: () => lease?.release(),
  };
}
