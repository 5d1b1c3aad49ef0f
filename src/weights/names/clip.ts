// The tensors of CLIPModel, keys verbatim as transformers 4.57.6 writes them, misspelt ones too. `logit_scale` is not among
// the parts: it is one number, which the card has.

import {
  gridOf,
  gridPositions,
  layers,
  linear,
  type NamedTensor,
  type NameTable,
  norm,
  patchLinear,
  table,
  tensorsOf,
  vocabularyLinear,
} from "./tensor-names.ts";

/** The sizes of one of the two encoders. */
export interface ClipEncoderSizes {
  readonly width: number;
  readonly mlpWidth: number;
  readonly layers: number;
  readonly normEps: number;
}

export interface ClipVisionSizes extends ClipEncoderSizes {
  readonly imageSize: number;
  readonly trainedSize: number;
  readonly patchSize: number;
}

/** Of a ViT that is used without what CLIP makes of its class token. */
export interface ClipTowerSizes extends ClipVisionSizes {
  /** Of the norm over all tokens. */
  readonly lastNormEps: number;
}

/** The sizes that decide the shapes; see models/clip-config.ts. */
export interface ClipSizes {
  readonly vision: ClipVisionSizes;
  readonly text: ClipEncoderSizes & { readonly vocabulary: number; readonly maxPositions: number };
  /** Of the vectors by which images and texts are compared. */
  readonly projectionWidth: number;
}

const channels = 3;

/** `<model>.encoder.layers.*` */
function layerNames(model: string, { width, mlpWidth, layers: count, normEps }: ClipEncoderSizes) {
  return layers(count, (i) => {
    const key = `${model}.encoder.layers.${i}`;
    return {
      norm1: norm(`${key}.layer_norm1`, width, normEps),
      query: linear(`${key}.self_attn.q_proj`, width, width),
      key: linear(`${key}.self_attn.k_proj`, width, width),
      value: linear(`${key}.self_attn.v_proj`, width, width),
      out: linear(`${key}.self_attn.out_proj`, width, width),
      norm2: norm(`${key}.layer_norm2`, width, normEps),
      fc1: linear(`${key}.mlp.fc1`, width, mlpWidth),
      fc2: linear(`${key}.mlp.fc2`, mlpWidth, width),
    };
  });
}

/** `vision_model.*` but the last norm */
export function clipVisionNames({ vision }: Pick<ClipSizes, "vision">) {
  const { width, patchSize, normEps } = vision;
  return {
    classEmbedding: table("vision_model.embeddings.class_embedding", [width]),
    positions: gridPositions("vision_model.embeddings.position_embedding.weight", gridOf(vision)),
    patches: patchLinear("vision_model.embeddings.patch_embedding", channels, patchSize, width, { bias: false }),
    // Misspelt in every checkpoint.
    preNorm: norm("vision_model.pre_layrnorm", width, normEps),
    layers: layerNames("vision_model", vision),
  };
}

/** `vision_model.*` as BLIP-2 uses it: the last norm is over all tokens. */
export function clipTowerNames({ vision }: { readonly vision: ClipTowerSizes }) {
  return {
    ...clipVisionNames({ vision }),
    norm: norm("vision_model.post_layernorm", vision.width, vision.lastNormEps),
  };
}

/** What turns the class token's row into an image's vector. */
export function clipImageHeadNames({ vision, projectionWidth }: Pick<ClipSizes, "vision" | "projectionWidth">) {
  return {
    norm: norm("vision_model.post_layernorm", vision.width, vision.normEps),
    projection: linear("visual_projection", vision.width, projectionWidth, { bias: false, keeps: "f16" }),
  };
}

/** `text_model.*`, `text_projection` */
export function clipTextNames({ text, projectionWidth }: Pick<ClipSizes, "text" | "projectionWidth">) {
  const { width, vocabulary, maxPositions, normEps } = text;
  return {
    words: vocabularyLinear("text_model.embeddings.token_embedding", width, vocabulary),
    positions: table("text_model.embeddings.position_embedding.weight", [maxPositions, width]),
    layers: layerNames("text_model", text),
    norm: norm("text_model.final_layer_norm", width, normEps),
    projection: linear("text_projection", width, projectionWidth, { bias: false, keeps: "f16" }),
  };
}

/** The logarithm of what cosines are multiplied by. */
export const clipLogitScale: NamedTensor = { name: "logit_scale", shape: [] };

/** Everything that such a checkpoint holds. */
export function clipNames(sizes: ClipSizes): NameTable {
  const parts = {
    vision: clipVisionNames(sizes),
    imageHead: clipImageHeadNames(sizes),
    text: clipTextNames(sizes),
  };
  return { required: [...tensorsOf(parts), clipLogitScale], tied: [] };
}
