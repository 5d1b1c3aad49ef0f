// The tensors of Blip2ForConditionalGeneration with T5, keys verbatim as transformers 4.57.6 writes them: ViT, Q-Former and
// projection as with OPT.

import { type Blip2OptSizes, projectionNames, qFormerNames, visionNames } from "./blip-2-opt.ts";
import { layers, linear, type NameTable, picked, rmsNorm, tensorsOf, vocabularyLinear } from "./tensor-names.ts";

/** The sizes that decide the shapes; see models/t5-config.ts. */
export interface T5Sizes {
  readonly vocabulary: number;
  readonly width: number;
  readonly heads: number;
  readonly headWidth: number;
  readonly ffnWidth: number;
  readonly encoderLayers: number;
  readonly decoderLayers: number;
  readonly relativePositions: { readonly buckets: number };
  readonly normEps: number;
  readonly tied: boolean;
}

export interface Blip2T5Sizes extends Pick<Blip2OptSizes, "vision" | "qFormer" | "queries"> {
  readonly text: T5Sizes;
}

/** The bucket of each distance from a query to a key, from as far before it to as far behind it; see models/relative-buckets.ts. */
export interface DistanceBuckets {
  readonly encoder: readonly number[];
  readonly decoder: readonly number[];
}

const model = "language_model";

function attentionNames(key: string, { width, heads, headWidth }: T5Sizes) {
  const inner = heads * headWidth;
  const plain = { bias: false } as const;
  return {
    query: linear(`${key}.q`, width, inner, plain),
    key: linear(`${key}.k`, width, inner, plain),
    value: linear(`${key}.v`, width, inner, plain),
    out: linear(`${key}.o`, inner, width, plain),
  };
}

/** `.layer.<index>` of a block: its feed-forward. What its last matrix reads overflows f16, so that it stays f32. */
function feedForwardNames(key: string, { width, ffnWidth, normEps }: T5Sizes) {
  return {
    mlpNorm: rmsNorm(`${key}.layer_norm`, width, normEps),
    gate: linear(`${key}.DenseReluDense.wi_0`, width, ffnWidth, { bias: false }),
    up: linear(`${key}.DenseReluDense.wi_1`, width, ffnWidth, { bias: false }),
    down: linear(`${key}.DenseReluDense.wo`, ffnWidth, width, { bias: false, keeps: "f32" }),
  };
}

/** `.layer.0` of a block */
function selfAttentionNames(key: string, text: T5Sizes) {
  return {
    attentionNorm: rmsNorm(`${key}.layer.0.layer_norm`, text.width, text.normEps),
    attention: attentionNames(`${key}.layer.0.SelfAttention`, text),
  };
}

/** Only block 0 of a stack has a table; all its blocks use it. */
function positionBiasNames(stack: string, { relativePositions, heads }: T5Sizes, picks: readonly number[]) {
  const key = `${model}.${stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight`;
  return picked(key, [relativePositions.buckets, heads], picks);
}

/** `language_model.encoder.*` */
function encoderNames(text: T5Sizes, picks: readonly number[]) {
  return {
    positionBias: positionBiasNames("encoder", text, picks),
    layers: layers(text.encoderLayers, (i) => {
      const key = `${model}.encoder.block.${i}`;
      return { ...selfAttentionNames(key, text), ...feedForwardNames(`${key}.layer.1`, text) };
    }),
    norm: rmsNorm(`${model}.encoder.final_layer_norm`, text.width, text.normEps),
  };
}

/** `language_model.decoder.*` */
function decoderNames(text: T5Sizes, picks: readonly number[]) {
  return {
    positionBias: positionBiasNames("decoder", text, picks),
    layers: layers(text.decoderLayers, (i) => {
      const key = `${model}.decoder.block.${i}`;
      return {
        ...selfAttentionNames(key, text),
        crossNorm: rmsNorm(`${key}.layer.1.layer_norm`, text.width, text.normEps),
        crossAttention: attentionNames(`${key}.layer.1.EncDecAttention`, text),
        ...feedForwardNames(`${key}.layer.2`, text),
      };
    }),
    norm: rmsNorm(`${model}.decoder.final_layer_norm`, text.width, text.normEps),
  };
}

/** `language_model.*`; a tied head is the embeddings. */
export function t5Names({ text }: Pick<Blip2T5Sizes, "text">, buckets: DistanceBuckets) {
  const { width, vocabulary, tied } = text;
  return {
    embeddings: vocabularyLinear(`${model}.shared`, width, vocabulary),
    encoder: encoderNames(text, buckets.encoder),
    decoder: decoderNames(text, buckets.decoder),
    ...(tied ? {} : { head: vocabularyLinear(`${model}.lm_head`, width, vocabulary) }),
  };
}

/** Everything that such a checkpoint holds. */
export function blip2T5Names(sizes: Blip2T5Sizes): NameTable {
  const { vocabulary, width, tied } = sizes.text;
  const copies = ["encoder.embed_tokens", "decoder.embed_tokens", ...(tied ? ["lm_head"] : [])];
  return {
    required: tensorsOf({
      vit: visionNames(sizes),
      qFormer: qFormerNames(sizes),
      projection: projectionNames(sizes),
      t5: t5Names(sizes, { encoder: [], decoder: [] }),
    }),
    tied: copies.map((name) => ({ name: `${model}.${name}.weight`, shape: [vocabulary, width] })),
  };
}
