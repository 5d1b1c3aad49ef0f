// The tensors of VisualGLM, as Hugging Face's repository and as SwissArmyTransformer (SAT) writes them. Upstream:
// THUDM/VisualGLM-6B, model/blip2.py and model/visualglm.py; SwissArmyTransformer, sat/model/official/chatglm_model.py.
//
// Both name the image's half alike behind a prefix, which is looked for; they differ in where the head is and in the order of
// rows in the language model's fused matrix.

import {
  gridOf,
  gridPositions,
  type LinearNames,
  layers,
  linear,
  type NameTable,
  norm,
  patchLinear,
  type RowPart,
  stacked,
  table,
  tensorsOf,
  vocabularyLinear,
} from "./tensor-names.ts";

/** The sizes that decide the shapes; see models/glm-config.ts. */
export interface VisualGlmSizes {
  readonly vision: {
    readonly width: number;
    readonly mlpWidth: number;
    readonly layers: number;
    readonly imageSize: number;
    readonly trainedSize: number;
    readonly patchSize: number;
    readonly normEps: number;
    readonly lastNormEps: number;
  };
  readonly qFormer: {
    readonly width: number;
    readonly mlpWidth: number;
    readonly layers: number;
    readonly imageWidth: number;
    readonly crossAttentionFrequency: number;
    readonly normEps: number;
  };
  readonly queries: number;
  readonly text: {
    readonly vocabulary: number;
    readonly width: number;
    readonly mlpWidth: number;
    readonly layers: number;
    readonly heads: number;
    readonly normEps: number;
  };
}

/** Where a checkpoint keeps what, and how the rows of the language model's fused matrix lie. */
export interface VisualGlmLayout {
  /** In front of `vit.`, `qformer.` and `glm_proj.` */
  readonly image: string;
  /** In front of `transformer.` */
  readonly text: string;
  /** Name of the head, without `.weight`. */
  readonly head: string;
  /** Queries, keys and values of each head together, or of all heads. */
  readonly fused: "by head" | "in thirds";
}

const channels = 3;

/** Endings by which the halves are found. */
const vitEnding = "vit.transformer.word_embeddings.weight";
const qFormerEnding = "qformer.transformer.word_embeddings.weight";
const textEnding = "transformer.word_embeddings.weight";
const headEnding = "lm_head.weight";

/**
 * By the names that a checkpoint has: `image_encoder.` and `lm_head` of a Hugging Face repository, `mixins.eva.model.` and a
 * head below `mixins.` of SAT. Where something is not found, the Hugging Face name is expected.
 */
export function visualGlmLayout(names: Iterable<string>): VisualGlmLayout {
  let layout: VisualGlmLayout = { image: "image_encoder.", text: "", head: "lm_head", fused: "by head" };
  for (const name of names) {
    if (name.endsWith(vitEnding)) layout = { ...layout, image: name.slice(0, -vitEnding.length) };
    else if (name.endsWith(textEnding) && !name.endsWith(qFormerEnding)) {
      layout = { ...layout, text: name.slice(0, -textEnding.length) };
    }
    if (name.endsWith(headEnding)) layout = { ...layout, head: name.slice(0, -".weight".length) };
    if (/(^|\.)mixins\.eva\.model\./.test(name)) layout = { ...layout, fused: "in thirds" };
  }
  return layout;
}

/** One of the `count` equal parts that follow each other in a fused matrix. */
function nth(index: number, count: number, width: number): RowPart {
  return { rows: count * width, offset: index * width, block: width, period: count * width };
}

/** The same where every head has its parts together. */
function nthOfHeads(index: number, count: number, width: number, heads: number): RowPart {
  const block = width / heads;
  return { rows: count * width, offset: index * block, block, period: count * block };
}

/** `vit.` */
export function visualGlmVitNames({ vision }: Pick<VisualGlmSizes, "vision">, { image }: VisualGlmLayout) {
  const { width, mlpWidth, patchSize, normEps, lastNormEps } = vision;
  const vit = `${image}vit`;
  return {
    classEmbedding: table(`${vit}.transformer.word_embeddings.weight`, [1, width], [width]),
    positions: gridPositions(`${vit}.transformer.position_embeddings.weight`, gridOf(vision)),
    patches: patchLinear(`${vit}.mixins.patch_embedding.proj`, channels, patchSize, width),
    layers: layers(vision.layers, (i) => {
      const key = `${vit}.transformer.layers.${i}`;
      return {
        norm1: norm(`${key}.input_layernorm`, width, normEps),
        qkv: linear(`${key}.attention.query_key_value`, width, 3 * width),
        projection: linear(`${key}.attention.dense`, width, width),
        norm2: norm(`${key}.post_attention_layernorm`, width, normEps),
        fc1: linear(`${key}.mlp.dense_h_to_4h`, width, mlpWidth),
        fc2: linear(`${key}.mlp.dense_4h_to_h`, mlpWidth, width),
      };
    }),
    norm: norm(`${vit}.mixins.cls.ln_vision`, width, lastNormEps),
  };
}

/**
 * `qformer.` A layer's `input_layernorm` is the last norm of the layer before it; that of the first one norms the queries,
 * and `final_layernorm` is the last norm of the last one.
 */
export function visualGlmQFormerNames(
  { qFormer, queries }: Pick<VisualGlmSizes, "qFormer" | "queries">,
  { image }: VisualGlmLayout,
) {
  const { width, mlpWidth, imageWidth, normEps, crossAttentionFrequency } = qFormer;
  const trunk = `${image}qformer.transformer`;
  const inputNorm = (i: number) =>
    norm(i < qFormer.layers ? `${trunk}.layers.${i}.input_layernorm` : `${trunk}.final_layernorm`, width, normEps);
  return {
    queryTokens: table(`${trunk}.word_embeddings.weight`, [queries, width]),
    norm: inputNorm(0),
    layers: layers(qFormer.layers, (i) => {
      const key = `${trunk}.layers.${i}`;
      const own = (index: number) =>
        linear(`${key}.attention.query_key_value`, width, width, { part: nth(index, 3, width) });
      const ofImage = (index: number) =>
        linear(`${key}.cross_attention.key_value`, imageWidth, width, { part: nth(index, 2, width) });
      const crossAttention = {
        query: linear(`${key}.cross_attention.query`, width, width),
        key: ofImage(0),
        value: ofImage(1),
        out: linear(`${key}.cross_attention.dense`, width, width),
        norm: norm(`${key}.post_cross_attention_layernorm`, width, normEps),
      };
      return {
        selfAttention: {
          query: own(0),
          key: own(1),
          value: own(2),
          out: linear(`${key}.attention.dense`, width, width),
          norm: norm(`${key}.post_attention_layernorm`, width, normEps),
        },
        ...(i % crossAttentionFrequency === 0 ? { crossAttention } : {}),
        queryFeedForward: {
          fc1: linear(`${key}.mlp.dense_h_to_4h`, width, mlpWidth),
          fc2: linear(`${key}.mlp.dense_4h_to_h`, mlpWidth, width),
          norm: inputNorm(i + 1),
        },
      };
    }),
  };
}

/** `glm_proj` */
export function visualGlmProjectionNames(
  { qFormer, text }: Pick<VisualGlmSizes, "qFormer" | "text">,
  { image }: VisualGlmLayout,
): LinearNames {
  return linear(`${image}glm_proj`, qFormer.width, text.width, { keeps: "f16" });
}

/** `transformer.`, and the head. */
export function glmNames({ text }: Pick<VisualGlmSizes, "text">, layout: VisualGlmLayout) {
  const { width, mlpWidth, vocabulary, heads, normEps } = text;
  const trunk = `${layout.text}transformer`;
  const part = (index: number) =>
    layout.fused === "by head" ? nthOfHeads(index, 3, width, heads) : nth(index, 3, width);
  return {
    embeddings: vocabularyLinear(`${trunk}.word_embeddings`, width, vocabulary),
    layers: layers(text.layers, (i) => {
      const key = `${trunk}.layers.${i}`;
      const fused = (index: number) => linear(`${key}.attention.query_key_value`, width, width, { part: part(index) });
      return {
        attentionNorm: norm(`${key}.input_layernorm`, width, normEps),
        qkv: stacked(fused(0), fused(1), fused(2)),
        out: linear(`${key}.attention.dense`, width, width),
        mlpNorm: norm(`${key}.post_attention_layernorm`, width, normEps),
        fc1: linear(`${key}.mlp.dense_h_to_4h`, width, mlpWidth),
        fc2: linear(`${key}.mlp.dense_4h_to_h`, mlpWidth, width),
      };
    }),
    norm: norm(`${trunk}.final_layernorm`, width, normEps),
    head: vocabularyLinear(layout.head, width, vocabulary),
  };
}

/** Everything that such a checkpoint holds. */
export function visualGlmNames(sizes: VisualGlmSizes, layout: VisualGlmLayout): NameTable {
  const required = tensorsOf({
    vit: visualGlmVitNames(sizes, layout),
    qFormer: visualGlmQFormerNames(sizes, layout),
    projection: visualGlmProjectionNames(sizes, layout),
    glm: glmNames(sizes, layout),
  });
  return { required, tied: [], unused: [`${layout.text}transformer.position_embeddings.weight`] };
}
