// The tensors of Blip2ForImageTextRetrieval, keys verbatim as transformers 4.57.6 writes them: ViT and Q-Former as in the
// models that write texts, and in place of the language model the Q-Former's own text branch and three heads.

import { type Blip2OptSizes, feedForwardNames, qFormerLayerNames, qFormerNames, visionNames } from "./blip-2-opt.ts";
import { layers, linear, type NameTable, table, tensorsOf, vocabularyLinear } from "./tensor-names.ts";

/** The sizes that decide the shapes; see models/blip-2-config.ts. */
export interface Blip2RetrievalSizes extends Pick<Blip2OptSizes, "vision" | "qFormer" | "queries"> {
  readonly text: { readonly vocabulary: number; readonly maxPositions: number };
  readonly projectionWidth: number;
}

/** `query_tokens`, `qformer.*` with a second feed-forward for text in every layer, and `embeddings.*` at the top. */
export function qFormerWithTextNames(sizes: Pick<Blip2RetrievalSizes, "qFormer" | "queries" | "text">) {
  const { qFormer, text } = sizes;
  const { width, mlpWidth, normEps } = qFormer;
  return {
    ...qFormerNames(sizes),
    text: {
      words: vocabularyLinear("embeddings.word_embeddings", width, text.vocabulary),
      positions: table("embeddings.position_embeddings.weight", [text.maxPositions, width]),
    },
    layers: layers(qFormer.layers, (i) => ({
      ...qFormerLayerNames(qFormer, i),
      textFeedForward: feedForwardNames(`qformer.encoder.layer.${i}`, "", width, mlpWidth, normEps),
    })),
  };
}

/** What turns the Q-Former's rows into vectors and logits. */
export function retrievalHeadNames({
  qFormer,
  projectionWidth,
}: Pick<Blip2RetrievalSizes, "qFormer" | "projectionWidth">) {
  return {
    vision: linear("vision_projection", qFormer.width, projectionWidth, { keeps: "f16" }),
    text: linear("text_projection", qFormer.width, projectionWidth, { keeps: "f16" }),
    /** Two logits: no match, match. */
    match: linear("itm_head", qFormer.width, 2, { keeps: "f16" }),
  };
}

/** Everything that such a checkpoint holds. */
export function blip2RetrievalNames(sizes: Blip2RetrievalSizes): NameTable {
  return {
    required: tensorsOf({
      vit: visionNames(sizes),
      qFormer: qFormerWithTextNames(sizes),
      heads: retrievalHeadNames(sizes),
    }),
    tied: [],
  };
}
