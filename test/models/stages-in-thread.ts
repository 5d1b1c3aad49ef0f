// The stages of a loaded model in the thread of a test, without the threads of src/workers.

import assert from "node:assert/strict";
import path from "node:path";
import type { RowProgram } from "../../src/gpu/row-program.ts";
import { RowScheduler } from "../../src/gpu/scheduler.ts";
import { toPixels } from "../../src/image/pixels.ts";
import type { LoadedModel } from "../../src/models/load-model.ts";
import type { Stages } from "../../src/stages.ts";
import { openTokenizer } from "../../src/text/tokenizer.ts";

/** @param folder of the checkpoint */
export async function stagesInThread({ card, programs }: LoadedModel, folder: string): Promise<Stages> {
  const tokenizer = await openTokenizer(folder);
  const scheduler = new RowScheduler();
  const run = <In, Out>(program: RowProgram<In, Out> | undefined, row: In): Promise<Out> => {
    assert.ok(program);
    return scheduler.run(program, row);
  };
  return {
    card,
    toPixels: (image, frame) => toPixels(image, card.image, frame),
    encode: (pixels) => run(programs.encode, pixels),
    query: (features, { instructionIds } = {}) =>
      instructionIds ? run(programs.queryInstructed, { features, instructionIds }) : run(programs.query, features),
    encodeAndQuery: (pixels) => run(programs.encodeAndQuery, pixels),
    tokenize: async (text) => tokenizer.tokenize(text),
    async tokenizeInstruction(text) {
      assert.ok(card.instruction, "a model that reads instructions");
      return (await openTokenizer(path.join(folder, "qformer_tokenizer"))).tokenize(text);
    },
    async tokenizeAnswer(text) {
      assert.ok(card.answersAlone && tokenizer.tokenizeAnswer, "a model whose answers stand alone");
      return tokenizer.tokenizeAnswer(text);
    },
    generate: (prompt, textIds, generation, { image } = {}) =>
      run(programs.generate, { prompt, textIds, generation, ...(image !== undefined && { image }) }),
    rank: (prompt, textIds, answers, { keep } = {}) =>
      run(programs.rank, { prompt, textIds, answers, ...(keep !== undefined && { keep }) }),
    attention: (features, ids) => run(programs.attention, { features, ids }),
    detokenize: async (ids) => tokenizer.detokenize(ids),
    close: async () => scheduler.close("drain"),
  };
}
