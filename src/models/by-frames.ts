// Rows about several frames: their prompts stand one after another, in time order, where the prompt of one image stands, as
// LAVIS' InstructBLIP and transformers' InstructBlipVideo have it. A language model for so many image slots differs in
// nothing but their number, so that each number has a program of its own over the same weights, made when it is first asked for.

import type { RowProgram, WorkingBytes } from "../gpu/row-program.ts";
import type { Activation } from "../stages.ts";
import { GenerationError } from "./errors.ts";
import type { LanguageModel } from "./language-model.ts";

/** A language model with the image slots of so many frames. */
export type ModelOfFrames = (frames: number) => LanguageModel;

/** Programs kept besides that of one frame, unless more are under way: each keeps the caches of its last batches. */
const keptPrograms = 3;

/** Most frames of one row: a model with 32 queries has no more than that many image slots in 4,096 positions. */
export const mostFrames = 128;

type FramedProgram<In, Out> = RowProgram<In, Out> & { close(): void };

/**
 * One program for rows of any number of frames, which is told by the shape of their prompts.
 * @param rows of the prompt of one frame
 */
export function programByFrames<In extends { readonly prompt: Activation }, Out>(
  rows: number,
  programOf: (frames: number) => FramedProgram<In, Out>,
): FramedProgram<In, Out> {
  const one = programOf(1);
  /** Of other numbers of frames, the least recently used first, with their batches under way. */
  const others = new Map<number, { readonly program: FramedProgram<In, Out>; running: number }>();
  const keptOf = (frames: number) => {
    const kept = others.get(frames) ?? { program: programOf(frames), running: 0 };
    others.delete(frames);
    others.set(frames, kept);
    return kept;
  };
  const of = (frames: number) => (frames === 1 ? one : keptOf(frames).program);
  const evict = () => {
    for (const [frames, { program, running }] of others) {
      if (others.size <= keptPrograms) return;
      if (running > 0) continue;
      others.delete(frames);
      program.close();
    }
  };
  // A prompt of another shape than some frames' is refused by the program of one.
  const framesOf = ({ prompt }: In) => (prompt.shape[0] % rows === 0 ? Math.max(1, prompt.shape[0] / rows) : 1);
  return {
    name: one.name,
    maxRows(key) {
      const [, frames = "1", own = key] = /^(\d+) frames: (.*)$/.exec(key) ?? [];
      return of(Number(frames)).maxRows(own);
    },
    key(row) {
      const frames = framesOf(row);
      if (frames > mostFrames) throw new GenerationError(`frames: expected at most ${mostFrames}, got ${frames}`);
      return frames === 1 ? one.key(row) : `${frames} frames: ${of(frames).key(row)}`;
    },
    start(batch) {
      const [head] = batch;
      const frames = head === undefined ? 1 : framesOf(head);
      if (frames === 1) return one.start(batch);
      const kept = keptOf(frames);
      const started = kept.program.start(batch);
      kept.running++;
      evict();
      return {
        ...started,
        release() {
          started.release();
          kept.running--;
          evict();
        },
      };
    },
    ...(one.working && { working: () => one.working?.() as WorkingBytes }),
    ...(one.prepare && { prepare: async () => one.prepare?.() }),
    close() {
      for (const { program } of [{ program: one }, ...others.values()]) program.close();
    },
  };
}
