// Rows about several frames: their prompts stand one after another, in time order, where the prompt of one image stands, as
// LAVIS' InstructBLIP and transformers' InstructBlipVideo have it. A language model for so many image slots differs in
// nothing but their number, so that each number has a program of its own over the same weights, made when it is first asked for.

import type { RowProgram, WorkingBytes } from "../gpu/row-program.ts";
import type { Activation } from "../stages.ts";
import { GenerationError } from "./errors.ts";
import type { LanguageModel } from "./language-model.ts";

/** A language model with the image slots of so many frames. */
export type ModelOfFrames = (frames: number) => LanguageModel;

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
  const programs = new Map<number, FramedProgram<In, Out>>([[1, programOf(1)]]);
  const of = (frames: number): FramedProgram<In, Out> => {
    const program = programs.get(frames) ?? programOf(frames);
    programs.set(frames, program);
    return program;
  };
  // A prompt of another shape than some frames' is refused by the program of one.
  const framesOf = ({ prompt }: In) => (prompt.shape[0] % rows === 0 ? Math.max(1, prompt.shape[0] / rows) : 1);
  const one = of(1);
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
      return of(head === undefined ? 1 : framesOf(head)).start(batch);
    },
    ...(one.working && { working: () => one.working?.() as WorkingBytes }),
    ...(one.prepare && { prepare: async () => one.prepare?.() }),
    close() {
      for (const program of programs.values()) program.close();
    },
  };
}
