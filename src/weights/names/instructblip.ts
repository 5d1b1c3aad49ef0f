// The tensors of InstructBlipForConditionalGeneration, keys verbatim as transformers 4.57.6 writes them: ViT and projection as in
// BLIP-2, a Q-Former whose text embeddings and first norm lie inside it, and Llama (Vicuna) or T5.

import { type Blip2OptSizes, feedForwardNames, projectionNames, qFormerLayerNames, visionNames } from "./blip-2-opt.ts";
import { type T5Sizes, t5Names } from "./blip-2-t5.ts";
import {
  computed,
  layers,
  linear,
  type NameTable,
  norm,
  rmsNorm,
  stacked,
  table,
  tensorsOf,
  vocabularyLinear,
} from "./tensor-names.ts";

/** The sizes that decide the shapes; see models/llama-config.ts. */
export interface LlamaSizes {
  readonly vocabulary: number;
  readonly width: number;
  readonly layers: number;
  readonly ffnWidth: number;
  /** Of a head. */
  readonly headWidth: number;
  readonly maxPositions: number;
  readonly normEps: number;
  readonly tied: boolean;
}

export interface InstructBlipSizes<Text> extends Pick<Blip2OptSizes, "vision" | "qFormer" | "queries"> {
  /** What the Q-Former reads. */
  readonly instruction: { readonly vocabulary: number; readonly maxPositions: number };
  readonly text: Text;
}

/** `query_tokens`, `qformer.*` with a second feed-forward for the instruction in every layer. */
export function instructedQFormerNames(sizes: Omit<InstructBlipSizes<unknown>, "text" | "vision">) {
  const { qFormer, queries, instruction } = sizes;
  const { width, mlpWidth, normEps } = qFormer;
  const embeddings = "qformer.embeddings";
  return {
    queryTokens: table("query_tokens", [1, queries, width], [queries, width]),
    norm: norm(`${embeddings}.layernorm`, width, normEps),
    text: {
      words: vocabularyLinear(`${embeddings}.word_embeddings`, width, instruction.vocabulary),
      positions: table(`${embeddings}.position_embeddings.weight`, [instruction.maxPositions, width]),
    },
    layers: layers(qFormer.layers, (i) => ({
      ...qFormerLayerNames(qFormer, i),
      textFeedForward: feedForwardNames(`qformer.encoder.layer.${i}`, "", width, mlpWidth, normEps),
    })),
  };
}

/** `language_model.*` of Llama. @param turns cosines and sines of all positions; see models/rotary-turns.ts */
export function llamaNames({ text }: { readonly text: LlamaSizes }, turns: () => Float32Array) {
  const { vocabulary, width, ffnWidth, headWidth, maxPositions, normEps, tied } = text;
  const plain = { bias: false } as const;
  const model = "language_model.model";
  return {
    embeddings: vocabularyLinear(`${model}.embed_tokens`, width, vocabulary),
    turns: computed("rotary turns", [maxPositions, headWidth], turns),
    layers: layers(text.layers, (i) => {
      const key = `${model}.layers.${i}`;
      return {
        attentionNorm: rmsNorm(`${key}.input_layernorm`, width, normEps),
        qkv: stacked(
          linear(`${key}.self_attn.q_proj`, width, width, plain),
          linear(`${key}.self_attn.k_proj`, width, width, plain),
          linear(`${key}.self_attn.v_proj`, width, width, plain),
        ),
        out: linear(`${key}.self_attn.o_proj`, width, width, plain),
        mlpNorm: rmsNorm(`${key}.post_attention_layernorm`, width, normEps),
        gate: linear(`${key}.mlp.gate_proj`, width, ffnWidth, plain),
        up: linear(`${key}.mlp.up_proj`, width, ffnWidth, plain),
        down: linear(`${key}.mlp.down_proj`, ffnWidth, width, plain),
      };
    }),
    norm: rmsNorm(`${model}.norm`, width, normEps),
    ...(tied ? {} : { head: vocabularyLinear("language_model.lm_head", width, vocabulary) }),
  };
}

/** Everything that a checkpoint with Llama holds; a tied head is the embeddings. */
export function instructBlipLlamaNames(sizes: InstructBlipSizes<LlamaSizes>): NameTable {
  const { vocabulary, width, tied } = sizes.text;
  return {
    required: tensorsOf({
      vit: visionNames(sizes),
      qFormer: instructedQFormerNames(sizes),
      projection: projectionNames(sizes),
      llama: llamaNames(sizes, () => new Float32Array()),
    }),
    tied: tied ? [{ name: "language_model.lm_head.weight", shape: [vocabulary, width] }] : [],
  };
}

/** Everything that a checkpoint with T5 holds. */
export function instructBlipT5Names(sizes: InstructBlipSizes<T5Sizes>): NameTable {
  const { vocabulary, width, tied } = sizes.text;
  const copies = ["encoder.embed_tokens", "decoder.embed_tokens", ...(tied ? ["lm_head"] : [])];
  return {
    required: tensorsOf({
      vit: visionNames(sizes),
      qFormer: instructedQFormerNames(sizes),
      projection: projectionNames(sizes),
      t5: t5Names(sizes, { encoder: [], decoder: [] }),
    }),
    tied: copies.map((name) => ({ name: `language_model.${name}.weight`, shape: [vocabulary, width] })),
  };
}
