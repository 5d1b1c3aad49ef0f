// What the kernels that draw ids are given in tests, and what transformers' warpers keep of chosen logits.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { packageRoot } from "../../src/gpu/package-root.ts";
import type { Tensor } from "../../src/gpu/tensor.ts";
import { samplingWidth } from "../../src/kernels/decode-state.ts";
import type { Settings } from "../reference/decoding.ts";
import type { Sampling } from "../reference/sampling.ts";
import { type DecodeCase, floatBits } from "./decode-rig.ts";
import type { Rig } from "./harness.ts";

export const plain: Settings = { maxNew: 9, minNew: 0, penalty: 1, lengthPenalty: 1 };
export const unchanged: Sampling = { temperature: 1, topK: 0, topP: 1, seed: [0, 0], item: [0, 0] };

export interface SampleCase extends DecodeCase {
  readonly items: readonly (DecodeCase["items"][number] & Partial<Sampling>)[];
}

/** (items, 8) u32 as decode-state.ts says; the last column is poison. */
export function samplingTensor(rig: Rig, { items }: Pick<SampleCase, "items">): Promise<Tensor> {
  const words = items.flatMap((item) => {
    const { temperature, topK, topP, seed, item: key } = { ...unchanged, ...item };
    return [floatBits(temperature), topK, floatBits(topP), ...seed, ...key, 0xdead];
  });
  return rig.tensor("sampling", [items.length, samplingWidth], words, "u32");
}

export interface WarperCase {
  readonly name: string;
  readonly logits: readonly number[];
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  /** Ids that transformers keeps. */
  readonly kept: readonly number[];
  /** Of the kept ids. */
  readonly probabilities: readonly number[];
}

/** test/fixtures/sampling/expected.json */
export function warperCases(): WarperCase[] {
  const file = join(packageRoot, "test", "fixtures", "sampling", "expected.json");
  const { logits, cases } = JSON.parse(readFileSync(file, "utf8")) as {
    logits: number[][];
    cases: {
      name: string;
      logits: number;
      temperature: number;
      top_k: number;
      top_p: number;
      kept: number[];
      probabilities: number[];
    }[];
  };
  return cases.map(({ top_k, top_p, ...each }) => ({
    ...each,
    logits: logits[each.logits] ?? [],
    topK: top_k,
    topP: top_p,
  }));
}
