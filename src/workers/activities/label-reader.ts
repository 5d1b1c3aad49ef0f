// Labels of classify jobs as vectors: a process reads each once, however many images it is compared with.

import { Context } from "@temporalio/activity";
import { labelVector } from "../../classifying.ts";
import type { ItemError } from "../../messages/job.ts";
import type { LabelStages } from "../../stages.ts";
import { itemError } from "./mistakes.ts";

/** Labels under way at once for one image; a few full batches. */
const labelsInFlight = 64;

/** Vectors that are kept for each model: 50 MB of 768 values each. */
const mostKept = 16_384;

/** By model: vectors of labels that were read, the oldest first. */
const kept = new WeakMap<LabelStages, Map<string, Float32Array>>();

/** Reads the labels of one activity. */
export class LabelReader {
  readonly #stages: LabelStages;
  readonly #templates: readonly string[];
  readonly #vectors = new Map<string, Promise<Float32Array>>();

  /** @param templates see labelVector */
  constructor(stages: LabelStages, templates: readonly string[]) {
    this.#stages = stages;
    this.#templates = templates;
  }

  /**
   * Their vectors in order, or why one could not be read.
   * @param signal of the activity
   * @throws the signal's reason once it is aborted; what is no fault of a label
   */
  async read(labels: readonly string[], signal: AbortSignal): Promise<(Float32Array | ItemError)[]> {
    const read: (Float32Array | ItemError)[] = [];
    for (let first = 0; first < labels.length; first += labelsInFlight) {
      const some = labels.slice(first, first + labelsInFlight);
      read.push(...(await Promise.all(some.map((label) => this.#readOne(label, signal)))));
    }
    return read;
  }

  async #readOne(label: string, signal: AbortSignal): Promise<Float32Array | ItemError> {
    try {
      const reading = this.#vectors.get(label) ?? this.#vectorOf(label, signal);
      this.#vectors.set(label, reading);
      return await reading;
    } catch (error) {
      signal.throwIfAborted();
      return itemError(error, Context.current().info.attempt);
    }
  }

  async #vectorOf(label: string, signal: AbortSignal): Promise<Float32Array> {
    const memory = kept.get(this.#stages) ?? new Map<string, Float32Array>();
    kept.set(this.#stages, memory);
    const key = JSON.stringify([label, ...this.#templates]);
    const known = memory.get(key);
    if (known !== undefined) return known;
    const vector = await labelVector(this.#stages, label, this.#templates, { signal });
    memory.set(key, vector);
    if (memory.size > mostKept) {
      const [oldest = key] = memory.keys();
      memory.delete(oldest);
    }
    return vector;
  }
}
