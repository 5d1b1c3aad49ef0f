// The tensors of BLIP's three kinds, keys verbatim as transformers 4.57.6 writes them. The ViT's are BLIP-2's.

import { type VitSizes, vitNames } from "./blip-2-opt.ts";
import {
  type LinearNames,
  layers,
  linear,
  type NameTable,
  norm,
  table,
  tensorsOf,
  vocabularyLinear,
} from "./tensor-names.ts";

/** The sizes that decide the shapes; see models/blip-config.ts. */
export interface BlipSizes {
  readonly vision: VitSizes;
  readonly text: {
    readonly vocabulary: number;
    readonly width: number;
    readonly mlpWidth: number;
    readonly layers: number;
    readonly maxPositions: number;
    readonly normEps: number;
    readonly memoryWidth: number;
    readonly tied: boolean;
  };
  readonly projectionWidth: number;
}

function attentionNames(key: string, width: number, keyWidth: number, eps: number) {
  return {
    query: linear(`${key}.self.query`, width, width),
    key: linear(`${key}.self.key`, keyWidth, width),
    value: linear(`${key}.self.value`, keyWidth, width),
    out: linear(`${key}.output.dense`, width, width),
    norm: norm(`${key}.output.LayerNorm`, width, eps),
  };
}

function words(prefix: string, { width, vocabulary }: BlipSizes["text"]): LinearNames {
  return vocabularyLinear(`${prefix}.embeddings.word_embeddings`, width, vocabulary);
}

/** All of a text half but its table of words. */
function textNames(
  prefix: string,
  { width, mlpWidth, maxPositions, memoryWidth, normEps, ...text }: BlipSizes["text"],
) {
  return {
    positions: table(`${prefix}.embeddings.position_embeddings.weight`, [maxPositions, width]),
    norm: norm(`${prefix}.embeddings.LayerNorm`, width, normEps),
    layers: layers(text.layers, (i) => {
      const key = `${prefix}.encoder.layer.${i}`;
      return {
        selfAttention: attentionNames(`${key}.attention`, width, width, normEps),
        crossAttention: attentionNames(`${key}.crossattention`, width, memoryWidth, normEps),
        feedForward: {
          fc1: linear(`${key}.intermediate.dense`, width, mlpWidth),
          fc2: linear(`${key}.output.dense`, mlpWidth, width),
          norm: norm(`${key}.output.LayerNorm`, width, normEps),
        },
      };
    }),
  };
}

/** `text_encoder.*` */
export function blipEncoderNames({ text }: Pick<BlipSizes, "text">) {
  return { words: words("text_encoder", text), ...textNames("text_encoder", text) };
}

const decoder = "text_decoder.bert";
const head = "text_decoder.cls.predictions";

/** `text_decoder.*`. The head's matrix is the table of words unless the configuration says otherwise. */
export function blipDecoderNames({ text }: Pick<BlipSizes, "text">) {
  const { width, vocabulary, normEps, tied } = text;
  const table = words(decoder, text);
  const { weight } = tied ? table : linear(`${head}.decoder`, width, vocabulary);
  return {
    ...(tied ? {} : { words: table }),
    ...textNames(decoder, text),
    transform: linear(`${head}.transform.dense`, width, width),
    transformNorm: norm(`${head}.transform.LayerNorm`, width, normEps),
    head: { ...table, weight, bias: { name: `${head}.bias`, shape: [vocabulary] } },
  };
}

/** Copies of the head's matrix and bias, which transformers does not use where there are others. */
function copies({ vocabulary, width, tied }: BlipSizes["text"]): NameTable["tied"] {
  return [
    ...(tied ? [{ name: `${head}.decoder.weight`, shape: [vocabulary, width] }] : []),
    { name: `${head}.decoder.bias`, shape: [vocabulary] },
  ];
}

/** `vision_proj.*`, `text_proj.*`, `itm_head.*` */
export function blipRetrievalHeadNames({ vision, text, projectionWidth }: BlipSizes) {
  return {
    vision: linear("vision_proj", vision.width, projectionWidth, { keeps: "f16" }),
    text: linear("text_proj", text.width, projectionWidth, { keeps: "f16" }),
    /** Two logits: no match, match. */
    match: linear("itm_head", text.width, 2, { keeps: "f16" }),
  };
}

/** Everything that a BlipForConditionalGeneration checkpoint holds. */
export function blipCaptionNames(sizes: BlipSizes): NameTable {
  const required = tensorsOf({ vit: vitNames(sizes), decoder: blipDecoderNames(sizes) });
  return { required, tied: copies(sizes.text) };
}

/** Everything that a BlipForQuestionAnswering checkpoint holds. */
export function blipVqaNames(sizes: BlipSizes): NameTable {
  const required = tensorsOf({
    vit: vitNames(sizes),
    encoder: blipEncoderNames(sizes),
    decoder: blipDecoderNames(sizes),
  });
  return { required, tied: copies(sizes.text) };
}

/** Everything that a BlipForImageTextRetrieval checkpoint holds. */
export function blipRetrievalNames(sizes: BlipSizes): NameTable {
  const required = tensorsOf({
    vit: vitNames(sizes),
    encoder: blipEncoderNames(sizes),
    heads: blipRetrievalHeadNames(sizes),
  });
  return { required, tied: [] };
}
