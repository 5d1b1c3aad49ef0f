// Where a model looked in an image, as a row program of its own: the weights of the last layer that reads the features. It
// runs only when asked, and computes the layers before it once more.

import type { Gpu } from "../gpu/device.ts";
import { view } from "../gpu/view.ts";
import { takeOver } from "../kernels/take-over.ts";
import { type Activation, type AttentionMaps, featuresForm, type ModelCard } from "../stages.ts";
import type { QFormerConfig } from "./blip-2-config.ts";
import type { BlipTextConfig } from "./blip-config.ts";
import {
  type BlipDecoderWeights,
  blipEncoderBlock,
  blipEncoderCost,
  blipLooks,
  blipTextEmbeddings,
} from "./blip-text.ts";
import { checkedLength, cursorBytes, cursorsOf, numberBytes, oneNumber } from "./contrast.ts";
import { UnsupportedModelError } from "./errors.ts";
import { given } from "./given.ts";
import { activationBytes, qFormerCost, queryAndTextParts, queryParts, widestWithImage } from "./image-stage.ts";
import type { InstructBlipConfig } from "./instructblip-config.ts";
import { type QFormerLayer, type QFormerWeights, qFormerLooks } from "./q-former.ts";
import { type Part, type StagedProgram, stagedProgram, textProgram } from "./staged-program.ts";

export interface AttentionRow {
  readonly features: Activation;
  /** What a decoder reads, from its first id on, or the instruction that queries read; queries without one read none. */
  readonly ids: readonly number[];
}

export type AttentionProgram = StagedProgram<AttentionRow, AttentionMaps>;

/** Where the queries of a Q-Former look: the last layer with cross-attention. */
export function queryAttention(
  gpu: Gpu,
  w: QFormerWeights,
  config: { readonly qFormer: QFormerConfig; readonly queries: number },
  card: ModelCard,
): AttentionProgram {
  const form = featuresForm(card);
  const bytesOf = activationBytes("attention", form);
  const { qFormer, queries } = config;
  const { heads } = qFormer;
  const [tokens] = card.features;
  const { at, layer } = lastThatLooks(w, card);
  const looking: Part = {
    cost: qFormerCost(layer, qFormer, { queries, textRows: 0, tokens }),
    run: (k, [features, x], batch) => [
      qFormerLooks(k, layer, { queries: given(x), text: null }, given(features), { batch, heads }),
    ],
  };
  return stagedProgram(gpu, {
    name: "attention",
    inputs: [form],
    bytesOf: ({ features }: AttentionRow) => [bytesOf(features)],
    parts: [...queryParts(w, config, card).slice(0, 1 + at), looking],
    output: { shape: [heads, queries, tokens], type: "f32" },
    resultOf: (bytes) => meanOverHeads(bytes, heads, queries, tokens),
    widest: Math.max(heads * queries * tokens, tokens * qFormer.width, tokens * card.features[1]),
  });
}

/** The same of a Q-Former whose queries see an instruction beside the image. */
export function instructedAttention(
  gpu: Gpu,
  w: QFormerWeights,
  config: InstructBlipConfig<unknown>,
  card: ModelCard,
): AttentionProgram {
  const form = featuresForm(card);
  const bytesOf = activationBytes("attention", form);
  const { qFormer, queries, instruction } = config;
  const { heads } = qFormer;
  const [tokens] = card.features;
  const { at, layer } = lastThatLooks(w, card);
  return textProgram(
    gpu,
    "attention with instruction",
    ({ ids }) => checkedLength(instruction, ids),
    (textRows) => ({
      name: `attention with an instruction of ${textRows}`,
      inputs: [form, cursorsOf(textRows), oneNumber],
      bytesOf: ({ features, ids }) => [
        bytesOf(features),
        cursorBytes(ids, textRows),
        numberBytes(queries + ids.length),
      ],
      parts: [
        ...queryAndTextParts(w, config, card, textRows).slice(0, 1 + at),
        {
          cost: qFormerCost(layer, qFormer, { queries, textRows, tokens }),
          run(k, [features, lengths, x, read], batch) {
            const sequence = { queries: given(x), text: given(read) };
            return [qFormerLooks(k, layer, sequence, given(features), { batch, heads, lengths: given(lengths) })];
          },
        },
      ],
      output: { shape: [heads, queries, tokens], type: "f32" },
      resultOf: (bytes) => meanOverHeads(bytes, heads, queries, tokens),
      widest: Math.max(heads * queries * tokens, widestWithImage(config, card, textRows)),
    }),
  );
}

/** The last layer whose queries look at the image, and how many are before it. @throws UnsupportedModelError without one */
function lastThatLooks(
  { layers }: QFormerWeights,
  { ref }: ModelCard,
): { readonly at: number; readonly layer: QFormerLayer } {
  const at = layers.findLastIndex(({ crossAttention }) => crossAttention !== undefined);
  const layer = layers[at];
  if (layer !== undefined) return { at, layer };
  throw new UnsupportedModelError(`${ref}: expected a Q-Former that reads the image, got none`);
}

/** Where a decoder looks at each of its ids: its last layer, all ids read at once. */
export function decoderAttention(
  gpu: Gpu,
  w: BlipDecoderWeights,
  words: BlipDecoderWeights["head"],
  text: BlipTextConfig,
  card: ModelCard,
): AttentionProgram {
  const form = featuresForm(card);
  const bytesOf = activationBytes("attention", form);
  const { heads } = text;
  const [tokens, width] = card.features;
  const limits = { vocabulary: w.head.columns, maxPositions: text.maxPositions };
  const sizes = (batch: number, lengths: Parameters<Part["run"]>[1][number]) => ({
    batch,
    heads,
    lengths,
    causal: true,
  });
  const last = w.layers.at(-1);
  if (last === undefined) throw new UnsupportedModelError(`${card.ref}: expected a decoder with layers, got none`);
  return textProgram(
    gpu,
    "attention",
    ({ ids }) => checkedLength(limits, ids),
    (textRows) => ({
      name: `attention of ${textRows}`,
      inputs: [form, cursorsOf(textRows), oneNumber],
      bytesOf: ({ features, ids }) => [bytesOf(features), cursorBytes(ids, textRows), numberBytes(ids.length)],
      parts: [
        {
          cost: 0,
          run: (k, [features, cursors, lengths], batch) => [
            view(takeOver(k, given(features)), [batch * tokens, width]),
            given(lengths),
            blipTextEmbeddings(k, words, w, given(cursors)),
          ],
        },
        ...w.layers.slice(0, -1).map(
          (layer): Part => ({
            cost: blipEncoderCost(text, textRows, tokens),
            run(k, [features, lengths, x], batch) {
              const [image, counts] = [given(features), given(lengths)];
              return [image, counts, blipEncoderBlock(k, layer, given(x), image, sizes(batch, counts))];
            },
          }),
        ),
        {
          cost: blipEncoderCost(text, textRows, tokens),
          run: (k, [features, lengths, x], batch) => [
            blipLooks(k, last, given(x), given(features), sizes(batch, given(lengths))),
          ],
        },
      ],
      output: { shape: [heads, textRows, tokens], type: "f32" },
      resultOf: (bytes) => meanOverHeads(bytes, heads, textRows, tokens),
      widest: Math.max(heads * textRows * tokens, tokens * Math.max(width, text.width), textRows * text.mlpWidth),
    }),
  );
}

/** Undivided weights (heads, lookers, tokens) -> each head's divided by their sum, and the mean of the heads. */
function meanOverHeads(bytes: Uint8Array, heads: number, lookers: number, tokens: number): AttentionMaps {
  const all = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  const weights = new Float32Array(lookers * tokens);
  for (let row = 0; row < heads * lookers; row++) {
    const own = all.subarray(row * tokens, (row + 1) * tokens);
    const scale = 1 / (heads * own.reduce((sum, weight) => sum + weight, 0));
    const to = (row % lookers) * tokens;
    for (const [token, weight] of own.entries()) weights[to + token] = (weights[to + token] ?? 0) + weight * scale;
  }
  return { shape: [lookers, tokens], weights };
}
