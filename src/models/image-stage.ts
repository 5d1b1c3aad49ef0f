// What the stages of all kinds of BLIP-2 share: the ViT in parts, and what goes into a stage and comes out of it.

import { ShapeError } from "../gpu/errors.ts";
import { view } from "../gpu/view.ts";
import { handOver } from "../kernels/hand-over.ts";
import { layerNorm } from "../kernels/layer-norm.ts";
import { takeOver } from "../kernels/take-over.ts";
import { type Activation, activationType, type CheckpointCard, featuresForm, type Pixels } from "../stages.ts";
import type { QFormerConfig } from "./blip-2-config.ts";
import type { VisionConfig } from "./config-parts.ts";
import { given } from "./given.ts";
import { type QFormerLayer, type QFormerWeights, qFormerBlock, queryEmbeddings, textEmbeddings } from "./q-former.ts";
import type { Part, StagePlan } from "./staged-program.ts";
import { imageEmbeddings, type VitWeights, vitBlock } from "./vit.ts";

export type ActivationForm = Omit<Activation, "bytes">;

/** Output and result of a stage that ends in an activation. */
export function activationOf(form: ActivationForm): Pick<StagePlan<never, Activation>, "output" | "resultOf"> {
  return { output: form, resultOf: (bytes) => ({ ...form, bytes }) };
}

/** The stage encode of BLIP-2: pixels -> features. */
export function encodePlan(w: VitWeights, vision: VisionConfig, card: CheckpointCard): StagePlan<Pixels, Activation> {
  const widest = card.features[0] * Math.max(3 * vision.width, vision.mlpWidth);
  return encodeStage(card, vitParts(w, vision, card), widest);
}

/**
 * The stage encode of any family.
 * @param parts pixels (batch * 3, height, width) -> features (batch * tokens, width) in the type of a hand-over
 * @param widest see StagePlan
 */
export function encodeStage(
  card: CheckpointCard,
  parts: readonly Part[],
  widest: number,
): StagePlan<Pixels, Activation> {
  const bytesOf = pixelBytes(card);
  return {
    name: "encode",
    inputs: [{ shape: [3, card.image.height, card.image.width], type: "f32" }],
    bytesOf: (row) => [bytesOf(row)],
    parts,
    ...activationOf(featuresForm(card)),
    widest,
  };
}

/** pixels (batch * 3, height, width) -> features (batch * tokens, width) in the type of a hand-over */
export function vitParts(
  w: VitWeights,
  vision: VisionConfig,
  card: Pick<CheckpointCard, "image" | "features" | "dtype">,
): readonly Part[] {
  const { patchSize, heads, width, mlpWidth } = vision;
  const { image, dtype } = card;
  const [tokens] = card.features;
  const sizes = (batch: number) => ({ batch, patchSize, heads });
  const embed: Part = {
    cost: 2 * tokens * 3 * patchSize ** 2 * width,
    run(k, [pixels], batch) {
      const images = view(given(pixels), [batch, 3, image.height, image.width]);
      return [imageEmbeddings(k, w, images, sizes(batch))];
    },
  };
  const blocks = w.layers.map(
    (layer): Part => ({
      cost: 2 * tokens * width * (4 * width + 2 * mlpWidth + 2 * tokens),
      run: (k, [x], batch) => [vitBlock(k, layer, given(x), sizes(batch))],
    }),
  );
  const end: Part = { cost: 0, run: (k, [x]) => [handOver(k, layerNorm(k, given(x), w.norm), activationType(dtype))] };
  return [embed, ...blocks, end];
}

/**
 * What the queries make of an image: features (batch * tokens, imageWidth) in the type of a hand-over -> those as f32, and
 * the queries (batch * queries, width) after the last layer
 */
export function queryParts(
  w: QFormerWeights,
  { qFormer, queries }: { qFormer: QFormerConfig; queries: number },
  card: Pick<CheckpointCard, "features">,
): readonly Part[] {
  const { heads } = qFormer;
  const begin: Part = {
    cost: 0,
    run: (k, [features], batch) => [takeOver(k, given(features)), queryEmbeddings(k, w, batch)],
  };
  const blocks = w.layers.map(
    (layer): Part => ({
      cost: qFormerCost(layer, qFormer, { queries, textRows: 0, tokens: card.features[0] }),
      run(k, [features, x], batch) {
        const image = given(features);
        const { queries: y } = qFormerBlock(k, layer, { queries: given(x), text: null }, image, { batch, heads });
        return [image, given(y)];
      },
    }),
  );
  return [begin, ...blocks];
}

/**
 * The same with a text that the queries read, and that reads them: features (batch * tokens, imageWidth) in the type of a
 * hand-over, cursors (batch * textRows, 4), lengths (batch), queries included -> features as f32, lengths, the queries
 * (batch * queries, width) and the text (batch * textRows, width) after the last layer
 */
export function queryAndTextParts(
  w: QFormerWeights,
  { qFormer, queries }: { readonly qFormer: QFormerConfig; readonly queries: number },
  card: Pick<CheckpointCard, "features">,
  textRows: number,
): readonly Part[] {
  const { heads } = qFormer;
  const begin: Part = {
    cost: 0,
    run: (k, [features, cursors, lengths], batch) => [
      takeOver(k, given(features)),
      given(lengths),
      queryEmbeddings(k, w, batch),
      textEmbeddings(k, w, given(cursors)),
    ],
  };
  const blocks = w.layers.map(
    (layer): Part => ({
      cost: qFormerCost(layer, qFormer, { queries, textRows, tokens: card.features[0] }),
      run(k, [features, lengths, x, read], batch) {
        const [image, counts] = [given(features), given(lengths)];
        const sizes = { batch, heads, lengths: counts };
        const y = qFormerBlock(k, layer, { queries: given(x), text: given(read) }, image, sizes);
        return [image, counts, given(y.queries), given(y.text)];
      },
    }),
  );
  return [begin, ...blocks];
}

/** f32 values of the widest activation of a Q-Former's pass that sees the image. */
export function widestWithImage(
  { qFormer, queries }: { readonly qFormer: QFormerConfig; readonly queries: number },
  card: Pick<CheckpointCard, "features">,
  textRows: number,
): number {
  const { width, mlpWidth, imageWidth } = qFormer;
  return Math.max(card.features[0] * Math.max(imageWidth, width), (queries + textRows) * Math.max(width, mlpWidth));
}

/** Floating-point operations of one layer for one row, about. @param tokens of the image, 0 without one */
export function qFormerCost(
  layer: QFormerLayer,
  { width, mlpWidth, imageWidth }: QFormerConfig,
  { queries, textRows, tokens }: { readonly queries: number; readonly textRows: number; readonly tokens: number },
): number {
  const image = layer.crossAttention ? 2 * width * (queries * 2 * width + 2 * tokens * imageWidth) : 0;
  return 2 * width * (queries + textRows) * (4 * width + 2 * mlpWidth) + image;
}

/** The bytes of pixels that are of the model's size. */
function pixelBytes({ image: { height, width } }: Pick<CheckpointCard, "image">): (pixels: Pixels) => Uint8Array {
  return (pixels) => {
    const { data } = pixels;
    if (pixels.height !== height || pixels.width !== width || data.length !== 3 * height * width) {
      throw new ShapeError(
        `encode: expected pixels (3, ${height}, ${width}), got ${data.length} values for (3, ${pixels.height}, ${pixels.width})`,
      );
    }
    return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  };
}

/** The bytes of an activation that is of this form. @param where names the stage in errors */
export function activationBytes(where: string, form: ActivationForm): (activation: Activation) => Uint8Array {
  const [rows, width] = form.shape;
  const bytes = rows * width * (form.type === "f16" ? 2 : 4);
  return (activation) => {
    const { kind, type, shape } = activation;
    const fits = kind === form.kind && type === form.type && shape[0] === rows && shape[1] === width;
    if (!fits || activation.bytes.length !== bytes) {
      throw new ShapeError(
        `${where}: expected ${form.kind} (${rows}, ${width}) ${form.type} of ${bytes} bytes, got ${kind} (${shape.join(", ")}) ` +
          `${type} of ${activation.bytes.length}`,
      );
    }
    return activation.bytes;
  };
}
