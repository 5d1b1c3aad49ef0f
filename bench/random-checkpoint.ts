// A checkpoint in Hugging Face layout with random weights, of any family and size, to be timed: its texts mean nothing.

import { mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { packageRoot } from "../src/gpu/package-root.ts";
import { blip2Config } from "../src/models/blip-2-config.ts";
import { optNames, projectionNames, qFormerNames, visionNames } from "../src/weights/names/blip-2-opt.ts";
import type { NameTree } from "../src/weights/names/tensor-names.ts";
import { vocabularyOf } from "./random-vocabulary.ts";
import { type RandomWeights, writeRandomWeights } from "./random-weights.ts";

export type Settings = Readonly<Record<string, unknown>>;

export interface RandomCheckpoint {
  /** A folder in Hugging Face layout: its tokenizer and its processor, and settings that `config` may take over. */
  readonly like: string;
  /** config.json, of the one of `like`. */
  config(like: LikeSettings): Settings;
  /** All tensors of such a configuration. @throws ConfigError, UnsupportedModelError */
  names(config: Record<string, unknown>): NameTree;
  readonly imageSize: number;
  /** Ids of the language model; the tokenizer of `like` gets made-up words for those that it has no text for. */
  readonly vocabulary: number;
  readonly weights: RandomWeights;
}

/** config.json of a fixture. */
export type LikeSettings = Settings & {
  readonly vision_config: Settings;
  readonly qformer_config: Settings;
  readonly text_config: Settings;
};

/** The tensors of BLIP-2 with OPT. */
export function blip2OptTree(config: Record<string, unknown>) {
  const sizes = blip2Config("random checkpoint", config);
  return {
    vit: visionNames(sizes),
    qFormer: qFormerNames(sizes),
    projection: projectionNames(sizes),
    opt: optNames(sizes),
  };
}

export const optFixture: string = join(packageRoot, "test", "fixtures", "models", "blip2-opt-tiny");

/** Heavy enough to time a pipeline, and to need several submits on a CPU driver: 401 tokens, about 1.2 GFLOP an image. */
export const heavy: RandomCheckpoint = {
  like: optFixture,
  config: (like) => ({
    ...like,
    num_query_tokens: 16,
    vision_config: {
      ...like.vision_config,
      ...{ hidden_size: 176, num_attention_heads: 2, num_hidden_layers: 4, intermediate_size: 256, image_size: 280 },
    },
    qformer_config: {
      ...like.qformer_config,
      ...{ hidden_size: 48, num_attention_heads: 4, num_hidden_layers: 3, intermediate_size: 96 },
      encoder_hidden_size: 176,
    },
    text_config: {
      ...like.text_config,
      ...{ hidden_size: 48, word_embed_proj_dim: 48, num_attention_heads: 4, num_hidden_layers: 2, ffn_dim: 96 },
      max_position_embeddings: 128,
    },
  }),
  names: blip2OptTree,
  imageSize: 280,
  vocabulary: 517,
  weights: { type: "F32", seed: 41 },
};

/** Those of them that are there. */
const copiedFiles = [
  "tokenizer_config.json",
  "qformer_tokenizer/tokenizer.json",
  "qformer_tokenizer/tokenizer_config.json",
] as const;

/** Write it. @returns `folder` */
export async function writeRandomCheckpoint(folder: string, checkpoint: RandomCheckpoint): Promise<string> {
  const { like, imageSize, vocabulary, weights } = checkpoint;
  const read = async (name: string) => JSON.parse(await readFile(join(like, name), "utf8"));
  await mkdir(folder, { recursive: true });
  const config = checkpoint.config(await read("config.json"));
  await writeFile(join(folder, "config.json"), JSON.stringify(config, null, 2));
  const processor = await read("preprocessor_config.json").catch(() => null);
  if (processor !== null) {
    const resized = { ...processor, size: { height: imageSize, width: imageSize } };
    await writeFile(join(folder, "preprocessor_config.json"), JSON.stringify(resized, null, 2));
  }
  for (const name of copiedFiles) {
    const bytes = await readFile(join(like, name)).catch(() => null);
    if (bytes === null) continue;
    await mkdir(dirname(join(folder, name)), { recursive: true });
    await writeFile(join(folder, name), bytes);
  }
  for (const { name, bytes } of await vocabularyOf(like, vocabulary)) await writeFile(join(folder, name), bytes);
  await writeRandomWeights(folder, checkpoint.names(config), weights);
  return folder;
}
