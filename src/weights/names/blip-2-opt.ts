// The tensors of Blip2ForConditionalGeneration with OPT, keys verbatim as transformers 4.57.6 writes them.

import { type ClipTowerSizes, clipTowerNames } from "./clip.ts";
import {
  gridOf,
  gridPositions,
  layers,
  linear,
  type NameTable,
  norm,
  patchLinear,
  stacked,
  table,
  tensorsOf,
  vocabularyLinear,
} from "./tensor-names.ts";

/** The sizes of a ViT whose queries, keys and values are one matrix. */
export interface VitSizes {
  readonly width: number;
  readonly mlpWidth: number;
  readonly layers: number;
  readonly imageSize: number;
  readonly trainedSize: number;
  readonly patchSize: number;
  readonly normEps: number;
  readonly lastNormEps: number;
  readonly qkvBias: boolean;
}

/** The sizes that decide the shapes; see models/blip-2-config.ts. */
export interface Blip2OptSizes {
  readonly vision: VitSizes | ClipTowerSizes;
  readonly qFormer: QFormerSizes;
  readonly queries: number;
  readonly text: {
    readonly vocabulary: number;
    readonly width: number;
    readonly layers: number;
    readonly ffnWidth: number;
    readonly maxPositions: number;
    readonly normEps: number;
  };
}

export interface QFormerSizes {
  readonly width: number;
  readonly mlpWidth: number;
  readonly layers: number;
  readonly imageWidth: number;
  /** Layers 0, n, 2n, … attend to the image. */
  readonly crossAttentionFrequency: number;
  readonly normEps: number;
}

const channels = 3;
/** Rows of OPT's position table in front of position 0. */
const positionOffset = 2;

/** `vision_model.*`, of either kind of ViT */
export function visionNames({ vision }: Pick<Blip2OptSizes, "vision">) {
  return "qkvBias" in vision ? vitNames({ vision }) : clipTowerNames({ vision });
}

/** `vision_model.*` */
export function vitNames({ vision }: { readonly vision: VitSizes }) {
  const { width, mlpWidth, patchSize, normEps, lastNormEps, qkvBias } = vision;
  return {
    classEmbedding: table("vision_model.embeddings.class_embedding", [1, 1, width], [width]),
    positions: gridPositions("vision_model.embeddings.position_embedding", gridOf(vision), [1]),
    patches: patchLinear("vision_model.embeddings.patch_embedding", channels, patchSize, width),
    layers: layers(vision.layers, (i) => {
      const key = `vision_model.encoder.layers.${i}`;
      return {
        norm1: norm(`${key}.layer_norm1`, width, normEps),
        qkv: linear(`${key}.self_attn.qkv`, width, 3 * width, { bias: qkvBias }),
        projection: linear(`${key}.self_attn.projection`, width, width),
        norm2: norm(`${key}.layer_norm2`, width, normEps),
        fc1: linear(`${key}.mlp.fc1`, width, mlpWidth),
        fc2: linear(`${key}.mlp.fc2`, mlpWidth, width),
      };
    }),
    norm: norm("vision_model.post_layernorm", width, lastNormEps),
  };
}

function attentionNames(key: string, width: number, keyWidth: number, eps: number) {
  return {
    query: linear(`${key}.attention.query`, width, width),
    key: linear(`${key}.attention.key`, keyWidth, width),
    value: linear(`${key}.attention.value`, keyWidth, width),
    out: linear(`${key}.output.dense`, width, width),
    norm: norm(`${key}.output.LayerNorm`, width, eps),
  };
}

/** Of a Q-Former layer: "_query" for the queries, "" for the text. */
export function feedForwardNames(key: string, suffix: string, width: number, mlpWidth: number, eps: number) {
  return {
    fc1: linear(`${key}.intermediate${suffix}.dense`, width, mlpWidth),
    fc2: linear(`${key}.output${suffix}.dense`, mlpWidth, width),
    norm: norm(`${key}.output${suffix}.LayerNorm`, width, eps),
  };
}

/** `qformer.encoder.layer.<i>`; the text slice's feed-forward is there only where the checkpoint reads text. */
export function qFormerLayerNames(sizes: QFormerSizes, index: number) {
  const { width, mlpWidth, imageWidth, normEps } = sizes;
  const key = `qformer.encoder.layer.${index}`;
  return {
    selfAttention: attentionNames(`${key}.attention`, width, width, normEps),
    ...(index % sizes.crossAttentionFrequency === 0
      ? { crossAttention: attentionNames(`${key}.crossattention`, width, imageWidth, normEps) }
      : {}),
    queryFeedForward: feedForwardNames(key, "_query", width, mlpWidth, normEps),
  };
}

/** `query_tokens`, `qformer.*` */
export function qFormerNames({ qFormer, queries }: Pick<Blip2OptSizes, "qFormer" | "queries">) {
  return {
    queryTokens: table("query_tokens", [1, queries, qFormer.width], [queries, qFormer.width]),
    norm: norm("qformer.layernorm", qFormer.width, qFormer.normEps),
    layers: layers(qFormer.layers, (i) => qFormerLayerNames(qFormer, i)),
  };
}

/** `language_projection.*` */
export function projectionNames({
  qFormer,
  text,
}: Pick<Blip2OptSizes, "qFormer"> & { readonly text: { readonly width: number } }) {
  return linear("language_projection", qFormer.width, text.width, { keeps: "f16" });
}

/** `language_model.*` */
export function optNames({ text }: Pick<Blip2OptSizes, "text">) {
  const { width, ffnWidth, vocabulary, normEps } = text;
  const decoder = "language_model.model.decoder";
  const rows = text.maxPositions + positionOffset;
  return {
    head: vocabularyLinear(`${decoder}.embed_tokens`, width, vocabulary),
    positions: table(`${decoder}.embed_positions.weight`, [rows, width]),
    layers: layers(text.layers, (i) => {
      const key = `${decoder}.layers.${i}`;
      return {
        attentionNorm: norm(`${key}.self_attn_layer_norm`, width, normEps),
        qkv: stacked(
          linear(`${key}.self_attn.q_proj`, width, width),
          linear(`${key}.self_attn.k_proj`, width, width),
          linear(`${key}.self_attn.v_proj`, width, width),
        ),
        out: linear(`${key}.self_attn.out_proj`, width, width),
        // Not to be confused with the decoder's own final_layer_norm: this is the feed-forward's.
        mlpNorm: norm(`${key}.final_layer_norm`, width, normEps),
        fc1: linear(`${key}.fc1`, width, ffnWidth),
        fc2: linear(`${key}.fc2`, ffnWidth, width),
      };
    }),
    norm: norm(`${decoder}.final_layer_norm`, width, normEps),
  };
}

/** Everything that such a checkpoint holds. */
export function blip2OptNames(sizes: Blip2OptSizes): NameTable {
  const { vocabulary, width } = sizes.text;
  return {
    required: tensorsOf({
      vit: visionNames(sizes),
      qFormer: qFormerNames(sizes),
      projection: projectionNames(sizes),
      opt: optNames(sizes),
    }),
    tied: [{ name: "language_model.lm_head.weight", shape: [vocabulary, width] }],
  };
}
