// Decode machines kept for the next batch: recording one takes far longer than a step.

import type { Gpu } from "../gpu/device.ts";
import { type DecodeMachine, makeDecodeMachine } from "./decode-machine.ts";
import type { GenerateBuckets } from "./generate-row.ts";
import type { LanguageModel } from "./language-model.ts";

/** Idle machines kept; each holds the caches of a whole batch. */
const defaultIdle = 3;

/** One per model and device. Machines in use belong to their batch; idle ones go, least recently used first. */
export class DecodeMachines {
  readonly #gpu: Gpu;
  readonly #model: LanguageModel;
  readonly #mostIdle: number;
  #idle: { key: string; machine: DecodeMachine }[] = [];
  #closed = false;

  constructor(gpu: Gpu, model: LanguageModel, { mostIdle = defaultIdle }: { mostIdle?: number } = {}) {
    this.#gpu = gpu;
    this.#model = model;
    this.#mostIdle = mostIdle;
  }

  /** A machine for up to `rows` rows: an idle one, or a new one. */
  async take(rows: number, buckets: GenerateBuckets): Promise<DecodeMachine> {
    const items = 2 ** Math.ceil(Math.log2(rows));
    const key = keyOf(items, buckets);
    const at = this.#idle.findLastIndex((each) => each.key === key);
    const [found] = at < 0 ? [] : this.#idle.splice(at, 1);
    return found?.machine ?? makeDecodeMachine(this.#gpu, this.#model, items, buckets);
  }

  giveBack(machine: DecodeMachine): void {
    if (this.#closed) {
      machine.destroy();
      return;
    }
    this.#idle.push({ key: keyOf(machine.items, machine.buckets), machine });
    while (this.#idle.length > this.#mostIdle) this.#idle.shift()?.machine.destroy();
  }

  close(): void {
    this.#closed = true;
    for (const { machine } of this.#idle.splice(0)) machine.destroy();
  }
}

function keyOf(items: number, { beams, textRows, newRows, promptType }: GenerateBuckets): string {
  return `${items} ${beams} ${textRows} ${newRows} ${promptType}`;
}
