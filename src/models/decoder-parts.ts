// How a decoder-only language model reads: embeddings, blocks, logits; once over image slots and text, then a token at a time.

import type { Recorder } from "../gpu/recorder.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { selectRows } from "../kernels/select-rows.ts";
import type { Linear } from "../kernels/weights.ts";
import { given } from "./given.ts";
import { type LanguageModel, type ModelPart, type PromptRows, runParts, type SequenceRows } from "./language-model.ts";

export interface DecoderPieces {
  /** cursors (rows, 4) -> embeddings (rows, width); image slots are left open */
  embeddings(k: Recorder, cursors: Tensor): Tensor;
  /** Fill the image slots of x (rows, width) with the prompt. */
  fillPrompt(k: Recorder, x: Tensor, prompt: Tensor): void;
  /** x: (rows, width) -> same, block by block, before the final norm */
  readonly blocks: readonly ModelPart<SequenceRows>[];
  /** width -> vocabulary */
  readonly head: Linear;
  /** hidden (rows, width) -> (rows, vocabulary), the final norm included */
  logits(k: Recorder, hidden: Tensor): Tensor;
}

/** The parts of a model of these pieces, and the whole of them at once. */
export function decoderParts({
  embeddings,
  fillPrompt,
  blocks,
  head,
  logits,
}: DecoderPieces): Pick<LanguageModel, "promptParts" | "tokenParts" | "readPrompts" | "readTokens"> {
  const logitsCost = (rows: number) => 2 * rows * head.inputs * head.columns;
  const promptParts: readonly ModelPart<PromptRows>[] = [
    {
      cost: () => 0,
      run(k, _, rows) {
        const x = embeddings(k, rows.cursors); //                                (items * tokens, width)
        fillPrompt(k, x, rows.prompt); //                                        same, image slots filled
        return x;
      },
    },
    ...blocks,
    {
      cost: (_, items) => logitsCost(items),
      run: (k, x, rows) => logits(k, selectRows(k, given(x), rows.lastRows)), // (items, vocabulary)
    },
  ];
  const tokenParts: readonly ModelPart<SequenceRows>[] = [
    { cost: () => 0, run: (k, _, rows) => embeddings(k, rows.cursors) },
    ...blocks,
    { cost: logitsCost, run: (k, x) => logits(k, given(x)) }, //                 (rows, vocabulary)
  ];
  return {
    promptParts,
    tokenParts,
    readPrompts: (k, rows) => runParts(k, promptParts, rows),
    readTokens: (k, rows) => runParts(k, tokenParts, rows),
  };
}
