// Checkpoints with random weights in the shapes of published ones, by name, f16 in shards.

import { join } from "node:path";
import { packageRoot } from "../src/gpu/package-root.ts";
import { blip2T5Config } from "../src/models/blip-2-config.ts";
import { classDefaults } from "../src/models/class-defaults.ts";
import { visualGlmConfig } from "../src/models/glm-config.ts";
import { instructBlipLlamaConfig, instructBlipT5Config } from "../src/models/instructblip-config.ts";
import { projectionNames, qFormerNames, visionNames } from "../src/weights/names/blip-2-opt.ts";
import { t5Names } from "../src/weights/names/blip-2-t5.ts";
import { instructedQFormerNames, llamaNames } from "../src/weights/names/instructblip.ts";
import {
  glmNames,
  visualGlmLayout,
  visualGlmProjectionNames,
  visualGlmQFormerNames,
  visualGlmVitNames,
} from "../src/weights/names/visualglm.ts";
import {
  blip2OptTree,
  type LikeSettings,
  optFixture,
  type RandomCheckpoint,
  type Settings,
} from "./random-checkpoint.ts";

const fixtures = join(packageRoot, "test", "fixtures");
const ref = "random checkpoint";
/** Bytes of one shard; smaller ones than published, so that a load goes from one to the next. */
const shardBytes = 2e9;
const weights = { type: "F16", seed: 1, shardBytes } as const;
const noBuckets = { encoder: [], decoder: [] };

/** Sizes of ViT-g and of the Q-Former; what they leave out is as in the fixture. */
function imageHalf(like: LikeSettings, kind: "Blip2" | "InstructBlip"): Settings {
  return {
    num_query_tokens: 32,
    vision_config: { ...like.vision_config, ...classDefaults[`${kind}VisionConfig`] },
    qformer_config: {
      ...like.qformer_config,
      ...classDefaults[`${kind}QFormerConfig`],
      encoder_hidden_size: 1408,
      ...(kind === "InstructBlip" && { vocab_size: 30523 }),
    },
  };
}

function opt(width: number): RandomCheckpoint {
  return {
    like: optFixture,
    config: (like) => ({
      ...like,
      ...imageHalf(like, "Blip2"),
      dtype: "float16",
      text_config: {
        ...like.text_config,
        ...{ hidden_size: width, word_embed_proj_dim: width, ffn_dim: 4 * width, num_attention_heads: 32 },
        ...{ num_hidden_layers: 32, max_position_embeddings: 2048, vocab_size: 50304 },
      },
    }),
    names: blip2OptTree,
    imageSize: 224,
    vocabulary: 50304,
    weights,
  };
}

/** flan-T5 XL. */
function t5Text(like: LikeSettings): Settings {
  return {
    ...like.text_config,
    ...{ d_model: 2048, d_kv: 64, d_ff: 5120, num_heads: 32, num_layers: 24, num_decoder_layers: 24 },
    ...{ vocab_size: 32128, relative_attention_num_buckets: 32, relative_attention_max_distance: 128 },
    layer_norm_epsilon: 1e-6,
  };
}

/** By the name that their publishers gave them. */
export const trueShapes = {
  "blip2-opt-2.7b": opt(2560),
  "blip2-opt-6.7b": opt(4096),
  "blip2-flan-t5-xl": {
    like: join(fixtures, "models", "blip2-t5-tiny"),
    config: (like) => ({ ...like, ...imageHalf(like, "Blip2"), dtype: "float16", text_config: t5Text(like) }),
    names(config) {
      const sizes = blip2T5Config(ref, config);
      return {
        vit: visionNames(sizes),
        qFormer: qFormerNames(sizes),
        projection: projectionNames(sizes),
        t5: t5Names(sizes, noBuckets),
      };
    },
    imageSize: 224,
    vocabulary: 32128,
    weights,
  },
  "instructblip-vicuna-7b": {
    like: join(fixtures, "instructblip", "instructblip-vicuna-tiny"),
    config: (like) => ({
      ...like,
      ...imageHalf(like, "InstructBlip"),
      dtype: "float16",
      text_config: {
        ...like.text_config,
        ...{ hidden_size: 4096, intermediate_size: 11008, num_hidden_layers: 32, vocab_size: 32064 },
        ...{ num_attention_heads: 32, num_key_value_heads: 32, head_dim: 128, max_position_embeddings: 2048 },
        ...{ rms_norm_eps: 1e-6, rope_theta: 10000 },
      },
    }),
    names(config) {
      const sizes = instructBlipLlamaConfig(ref, config);
      return {
        vit: visionNames(sizes),
        qFormer: instructedQFormerNames(sizes),
        projection: projectionNames(sizes),
        llama: llamaNames(sizes, () => new Float32Array()),
      };
    },
    imageSize: 224,
    vocabulary: 32064,
    weights,
  },
  "instructblip-flan-t5-xl": {
    like: join(fixtures, "instructblip", "instructblip-t5-half"),
    config: (like) => ({ ...like, ...imageHalf(like, "InstructBlip"), dtype: "float16", text_config: t5Text(like) }),
    names(config) {
      const sizes = instructBlipT5Config(ref, config);
      return {
        vit: visionNames(sizes),
        qFormer: instructedQFormerNames(sizes),
        projection: projectionNames(sizes),
        t5: t5Names(sizes, noBuckets),
      };
    },
    imageSize: 224,
    vocabulary: 32128,
    weights,
  },
  "visualglm-6b": {
    like: join(fixtures, "glm", "visualglm-tiny"),
    config: (like) => ({
      ...like,
      ...{ hidden_size: 4096, inner_hidden_size: 16384, num_layers: 28, num_attention_heads: 32 },
      ...{ layernorm_epsilon: 1e-5, max_sequence_length: 2048, image_length: 32, vocab_size: 130528 },
      eva_config: {
        ...(like.eva_config as Settings),
        ...{ hidden_size: 1408, inner_hidden_size: 6144, num_layers: 39, num_attention_heads: 16 },
        ...{ layernorm_epsilon: 1e-6, image_size: [224, 224], patch_size: 14, max_sequence_length: 257 },
      },
      qformer_config: {
        ...like.qformer_config,
        ...{ hidden_size: 768, inner_hidden_size: 3072, num_layers: 12, num_attention_heads: 12, vocab_size: 32 },
        ...{ cross_attn_hidden_size: 1408, layernorm_epsilon: 1e-12 },
        is_decoder: Array.from({ length: 12 }, (_, layer) => layer % 2 === 0),
      },
    }),
    names(config) {
      const sizes = visualGlmConfig(ref, config);
      const layout = visualGlmLayout([]);
      return {
        vit: visualGlmVitNames(sizes, layout),
        qFormer: visualGlmQFormerNames(sizes, layout),
        projection: visualGlmProjectionNames(sizes, layout),
        glm: glmNames(sizes, layout),
      };
    },
    imageSize: 224,
    vocabulary: 130528,
    weights,
  },
} as const satisfies Readonly<Record<string, RandomCheckpoint>>;

export type ShapeName = keyof typeof trueShapes;

/** Layers, widths and vocabulary of the quick form; everything else is as in the true one. */
const quickSizes: Settings = {
  ...{ hidden_size: 176, word_embed_proj_dim: 176, d_model: 176, d_kv: 44 },
  ...{ intermediate_size: 352, inner_hidden_size: 352, ffn_dim: 352, d_ff: 352 },
  ...{ num_hidden_layers: 2, num_layers: 2, num_decoder_layers: 2 },
  ...{ num_attention_heads: 4, num_key_value_heads: 4, num_heads: 4, head_dim: 44 },
  ...{ encoder_hidden_size: 176, cross_attn_hidden_size: 176 },
};
const quickVocabulary = 2048;

/** The same kind of checkpoint in a few megabytes: two layers of each part, in several shards. */
export function quickForm(checkpoint: RandomCheckpoint): RandomCheckpoint {
  return {
    ...checkpoint,
    config: (like) => {
      const config = smaller(checkpoint.config(like)) as Record<string, Record<string, unknown>>;
      return { ...config, ...smallVocabulary(config) };
    },
    vocabulary: quickVocabulary,
    weights: { ...checkpoint.weights, shardBytes: 2e6 },
  };
}

/** Sizes that a configuration has, at any depth, become those of the quick form. */
function smaller(settings: Settings): Settings {
  return Object.fromEntries(
    Object.entries(settings).map(([key, value]) => {
      if (key === "is_decoder" && Array.isArray(value)) return [key, value.slice(0, 2)];
      if (typeof value === "object" && value !== null && !Array.isArray(value))
        return [key, smaller(value as Settings)];
      return [key, quickSizes[key] ?? value];
    }),
  );
}

/** Of the language model, where the configuration has it. */
function smallVocabulary({ text_config: text }: Readonly<Record<string, Record<string, unknown>>>): Settings {
  if (text === undefined) return { vocab_size: quickVocabulary };
  return { text_config: { ...text, vocab_size: quickVocabulary } };
}
