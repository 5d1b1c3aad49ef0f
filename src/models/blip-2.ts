// BLIP-2: ViT, Q-Former, projection and OPT as the row programs encode, query, encodeAndQuery and generate.
// Upstream: transformers 4.57.6, models/blip_2/modeling_blip_2.py, Blip2ForConditionalGeneration.

import type { Gpu } from "../gpu/device.ts";
import { ShapeError } from "../gpu/errors.ts";
import type { RowProgram } from "../gpu/row-program.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { view } from "../gpu/view.ts";
import { handOver } from "../kernels/hand-over.ts";
import { layerNorm } from "../kernels/layer-norm.ts";
import { matmul } from "../kernels/matmul.ts";
import { takeOver } from "../kernels/take-over.ts";
import type { Linear } from "../kernels/weights.ts";
import type { Activation, ModelCard, Pixels } from "../stages.ts";
import type { Blip2Config, QFormerConfig, VisionConfig } from "./blip-2-config.ts";
import { generateProgram } from "./generate.ts";
import type { GenerateRow } from "./generate-row.ts";
import { type OptWeights, optLanguageModel } from "./opt.ts";
import { type QFormerWeights, qFormerBlock, queryEmbeddings } from "./q-former.ts";
import { type Part, type StagePlan, stagedProgram } from "./staged-program.ts";
import { imageEmbeddings, type VitWeights, vitBlock } from "./vit.ts";

/** The parts of the model that this process holds. */
export interface Blip2Weights {
  readonly vit?: VitWeights;
  readonly qFormer?: QFormerWeights;
  /** Q-Former width -> language model width */
  readonly projection?: Linear;
  readonly opt?: OptWeights;
}

export interface Blip2Programs {
  readonly encode?: RowProgram<Pixels, Activation>;
  readonly query?: RowProgram<Activation, Activation>;
  /** The same bytes as encode and query: features are rounded in between here too. */
  readonly encodeAndQuery?: RowProgram<Pixels, Activation>;
  readonly generate?: RowProgram<GenerateRow, number[]>;
}

/** The programs that these weights can serve. @returns them, and how to free their recordings */
export function blip2Programs(
  gpu: Gpu,
  weights: Blip2Weights,
  config: Blip2Config,
  card: ModelCard,
): { readonly programs: Blip2Programs; close(): void } {
  const { vit, qFormer, projection, opt } = weights;
  const type = card.dtype === "f32" ? "f32" : "f16";
  const features = { kind: "features", type, shape: card.features } as const;
  const prompt = { kind: "prompt", type, shape: card.prompt } as const;
  const { height, width } = card.image;
  const pixels = { input: { shape: [3, height, width], type: "f32" }, bytesOf: pixelBytes(card) } as const;
  const encodeParts = vit && vitParts(vit, config.vision, card);
  const queryParts = qFormer && projection && qFormerParts(qFormer, projection, config, card);
  const widestFeatures = card.features[0] * Math.max(3 * config.vision.width, config.vision.mlpWidth);
  const widestPrompt = Math.max(
    card.features[0] * config.qFormer.width,
    card.prompt[0] * Math.max(config.qFormer.mlpWidth, config.text.width),
  );
  const closing: { close(): void }[] = [];
  const make = <In>(plan: StagePlan<In>): RowProgram<In, Activation> => {
    const program = stagedProgram(gpu, plan);
    closing.push(program);
    return program;
  };
  const generate =
    opt &&
    generateProgram(
      gpu,
      optLanguageModel(opt, config.text, { queries: config.queries, imageId: config.imageId, cacheType: type }),
    );
  if (generate) closing.push(generate);
  const programs: Blip2Programs = {
    ...(encodeParts && {
      encode: make({ name: "encode", ...pixels, parts: encodeParts, output: features, widest: widestFeatures }),
    }),
    ...(queryParts && {
      query: make({
        name: "query",
        input: features,
        bytesOf: activationBytes(features),
        parts: queryParts,
        output: prompt,
        widest: Math.max(widestPrompt, card.features[0] * card.features[1]),
      }),
    }),
    ...(encodeParts &&
      queryParts && {
        encodeAndQuery: make({
          name: "encode and query",
          ...pixels,
          parts: [...encodeParts, ...queryParts],
          output: prompt,
          widest: Math.max(widestFeatures, widestPrompt),
        }),
      }),
    ...(generate && { generate }),
  };
  return {
    programs,
    close() {
      for (const each of closing) each.close();
    },
  };
}

/** pixels (batch * 3, height, width) -> features (batch * tokens, width) in the type of a hand-over */
export function vitParts(w: VitWeights, vision: VisionConfig, card: ModelCard): readonly Part[] {
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
  const end: Part = { cost: 0, run: (k, [x]) => [handOver(k, layerNorm(k, given(x), w.norm), dtype)] };
  return [embed, ...blocks, end];
}

/** features (batch * tokens, imageWidth) in the type of a hand-over -> prompt (batch * queries, llmWidth) in the same */
export function qFormerParts(
  w: QFormerWeights,
  projection: Linear,
  { qFormer, queries }: { qFormer: QFormerConfig; queries: number },
  card: ModelCard,
): readonly Part[] {
  const { heads, width, mlpWidth, imageWidth } = qFormer;
  const [tokens] = card.features;
  const begin: Part = {
    cost: 0,
    run: (k, [features], batch) => [takeOver(k, given(features)), queryEmbeddings(k, w, batch)],
  };
  const blocks = w.layers.map(
    (layer): Part => ({
      cost: 2 * width * (queries * (6 * width + 2 * mlpWidth) + (layer.crossAttention ? 2 * tokens * imageWidth : 0)),
      run(k, [features, x], batch) {
        const image = given(features);
        const { queries: y } = qFormerBlock(k, layer, { queries: given(x), text: null }, image, { batch, heads });
        return [image, given(y)];
      },
    }),
  );
  const end: Part = {
    cost: 2 * queries * projection.inputs * projection.columns,
    run: (k, [, x]) => [handOver(k, matmul(k, given(x), projection), card.dtype)],
  };
  return [begin, ...blocks, end];
}

function given(tensor: Tensor | null | undefined): Tensor {
  if (!tensor) throw new ShapeError("blip-2: expected a tensor from the part before, got none");
  return tensor;
}

function pixelBytes({ image: { height, width } }: ModelCard): (pixels: Pixels) => Uint8Array {
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

function activationBytes(form: Omit<Activation, "bytes">): (activation: Activation) => Uint8Array {
  const [rows, width] = form.shape;
  const bytes = rows * width * (form.type === "f16" ? 2 : 4);
  return (activation) => {
    const { kind, type, shape } = activation;
    const fits = kind === form.kind && type === form.type && shape[0] === rows && shape[1] === width;
    if (!fits || activation.bytes.length !== bytes) {
      throw new ShapeError(
        `query: expected ${form.kind} (${rows}, ${width}) ${form.type} of ${bytes} bytes, got ${kind} (${shape.join(", ")}) ` +
          `${type} of ${activation.bytes.length}`,
      );
    }
    return activation.bytes;
  };
}
