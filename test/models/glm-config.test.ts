// config.json of VisualGLM, what is refused, and the published sizes: names, shapes and the number of parameters.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { test } from "node:test";
import { visualGlmConfig, visualGlmImageSettings } from "../../src/models/glm-config.ts";
import { expectTensors } from "../../src/weights/checkpoint.ts";
import {
  visualGlmLayout,
  visualGlmNames,
  visualGlmQFormerNames,
  visualGlmVitNames,
} from "../../src/weights/names/visualglm.ts";
import { glmFolder } from "./glm-checkpoint.ts";

const published = {
  model_type: "chatglm",
  vocab_size: 130528,
  hidden_size: 4096,
  inner_hidden_size: 16384,
  num_layers: 28,
  num_attention_heads: 32,
  max_sequence_length: 2048,
  layernorm_epsilon: 1e-5,
  position_encoding_2d: true,
  bos_token_id: 130004,
  eos_token_id: 130005,
  mask_token_id: 130000,
  gmask_token_id: 130001,
  pad_token_id: 3,
  image_length: 32,
  eva_config: {
    ...{ hidden_size: 1408, inner_hidden_size: 6144, num_layers: 39, num_attention_heads: 16, patch_size: 14 },
    ...{ image_size: [224, 224], layernorm_epsilon: 1e-6, layernorm_order: "pre", use_final_layernorm: false },
  },
  qformer_config: {
    ...{ hidden_size: 768, inner_hidden_size: 3072, num_layers: 12, num_attention_heads: 12, vocab_size: 32 },
    ...{ cross_attn_hidden_size: 1408, layernorm_epsilon: 1e-12, layernorm_order: "post" },
    is_decoder: Array.from({ length: 12 }, (_, i) => i % 2 === 0),
  },
};

const hub = visualGlmLayout(["image_encoder.vit.transformer.word_embeddings.weight", "lm_head.weight"]);
const sat = visualGlmLayout([
  "transformer.word_embeddings.weight",
  "mixins.eva.model.vit.transformer.word_embeddings.weight",
  "mixins.eva.model.qformer.transformer.word_embeddings.weight",
  "mixins.chatglm-final.lm_head.weight",
]);

test("the published model: every size from its key, 7,802,193,408 parameters under either naming", () => {
  const config = visualGlmConfig("m", published);
  assert.deepEqual(config.text, {
    ...{ vocabulary: 130528, width: 4096, mlpWidth: 16384, layers: 28, heads: 32, maxPositions: 2048 },
    ...{ normEps: 1e-5, stopIds: [130005] },
  });
  assert.deepEqual(config.ids, { mask: 130001, start: 130004 });
  assert.equal(config.qFormer.crossAttentionFrequency, 2);
  const shapes = new Map<string, readonly number[]>();
  for (const layout of [hub, sat]) {
    const { required } = visualGlmNames(config, layout);
    const sizes = required.map(({ shape }) => shape.reduce((product, size) => product * size, 1));
    assert.equal(new Set(required.map(({ name }) => name)).size, required.length);
    assert.equal(
      sizes.reduce((sum, size) => sum + size, 0),
      7_802_193_408,
    );
    for (const { name, shape } of required) shapes.set(name, shape);
  }
  const expected: [string, number[]][] = [
    ["transformer.word_embeddings.weight", [130528, 4096]],
    ["lm_head.weight", [130528, 4096]],
    ["mixins.chatglm-final.lm_head.weight", [130528, 4096]],
    ["transformer.layers.27.attention.query_key_value.weight", [12288, 4096]],
    ["transformer.layers.27.attention.query_key_value.bias", [12288]],
    ["transformer.layers.0.mlp.dense_h_to_4h.weight", [16384, 4096]],
    ["image_encoder.vit.transformer.word_embeddings.weight", [1, 1408]],
    ["image_encoder.vit.transformer.position_embeddings.weight", [257, 1408]],
    ["image_encoder.vit.mixins.patch_embedding.proj.weight", [1408, 3, 14, 14]],
    ["image_encoder.vit.transformer.layers.38.mlp.dense_4h_to_h.weight", [1408, 6144]],
    ["image_encoder.vit.mixins.cls.ln_vision.bias", [1408]],
    ["mixins.eva.model.qformer.transformer.word_embeddings.weight", [32, 768]],
    ["mixins.eva.model.qformer.transformer.layers.10.cross_attention.key_value.weight", [1536, 1408]],
    ["mixins.eva.model.qformer.transformer.layers.11.attention.query_key_value.weight", [2304, 768]],
    ["mixins.eva.model.glm_proj.weight", [4096, 768]],
  ];
  for (const [name, shape] of expected) assert.deepEqual(shapes.get(name), shape, name);
  assert.ok(!shapes.has("image_encoder.qformer.transformer.layers.11.cross_attention.query.weight"));
});

test("the norms of the three parts, and the last one of the ViT, which no file names", () => {
  const config = visualGlmConfig("m", published);
  const { layers, norm } = visualGlmVitNames(config, hub);
  assert.deepEqual([layers[0]?.norm1.eps, layers[38]?.norm2.eps, norm.eps], [1e-6, 1e-6, 1e-5]);
  const qFormer = visualGlmQFormerNames(config, hub);
  assert.equal(qFormer.norm.gain.name, "image_encoder.qformer.transformer.layers.0.input_layernorm.weight");
  const ends = qFormer.layers.map(({ queryFeedForward }) => queryFeedForward.norm.gain.name);
  assert.equal(ends[0], "image_encoder.qformer.transformer.layers.1.input_layernorm.weight");
  assert.equal(ends[11], "image_encoder.qformer.transformer.final_layernorm.weight");
  assert.equal(qFormer.norm.eps, 1e-12);
});

test("a checkpoint's own prefixes are found; a stray table of positions and buffers are no problem", () => {
  const config = visualGlmConfig("m", published);
  for (const [prefix, head] of [
    ["image_encoder.", "lm_head"],
    ["model.image_encoder.", "model.lm_head"],
    ["mixins.eva.model.", "mixins.chatglm-final.lm_head"],
  ] as const) {
    const text = prefix.startsWith("model.") ? "model." : "";
    const layout = visualGlmLayout([
      `${prefix}qformer.transformer.word_embeddings.weight`,
      `${text}transformer.word_embeddings.weight`,
      `${prefix}vit.transformer.word_embeddings.weight`,
      `${head}.weight`,
    ]);
    const fused = prefix.startsWith("mixins") ? "in thirds" : "by head";
    assert.deepEqual(layout, { image: prefix, text, head, fused });
    const names = visualGlmNames(config, layout);
    const stored = (name: string, shape: readonly number[]) =>
      [name, { name, shape, dtype: "F16", file: "", start: 0, bytes: 0 }] as const;
    const extra = [
      stored(`${text}transformer.position_embeddings.weight`, [2048, 4096]),
      stored(`${text}transformer.layers.0.attention.rotary_emb.inv_freq`, [32]),
    ];
    const tensors = new Map([...names.required.map(({ name, shape }) => stored(name, shape)), ...extra]);
    expectTensors({ ref: "m", folder: "", weightFiles: [], tensors, problems: [] }, names);
  }
});

test("what is not built is refused by its key", async () => {
  const eva = published.eva_config;
  const qFormer = published.qformer_config;
  const refused: [object, string, string][] = [
    [
      { eva_config: undefined },
      "UnsupportedModelError",
      "m: expected VisualGLM, whose config.json has eva_config and qformer_config, got a chatglm without them, which reads no images",
    ],
    [{ position_encoding_2d: false }, "UnsupportedModelError", "m: position_encoding_2d: expected true, got false"],
    [
      { num_attention_heads: 2048 },
      "UnsupportedModelError",
      "m: num_attention_heads: expected heads of a multiple of 4 values in a hidden size of 4096, got 2048",
    ],
    [{ image_length: 31 }, "UnsupportedModelError", "m: qformer_config.vocab_size: expected 31, got 32"],
    [
      { eva_config: { ...eva, layernorm_order: "sandwich" } },
      "UnsupportedModelError",
      "m: eva_config.layernorm_order: expected pre, got sandwich",
    ],
    [
      { eva_config: { ...eva, use_final_layernorm: true } },
      "UnsupportedModelError",
      "m: eva_config.use_final_layernorm: expected false, got true",
    ],
    [
      { eva_config: { ...eva, image_size: [224, 336] } },
      "UnsupportedModelError",
      "m: eva_config.image_size: expected a square, got 224 x 336",
    ],
    [
      { qformer_config: { ...qFormer, cross_attn_hidden_size: 1024 } },
      "UnsupportedModelError",
      "m: qformer_config.cross_attn_hidden_size: expected 1408, got 1024",
    ],
    [
      { qformer_config: { ...qFormer, is_decoder: [true, false] } },
      "UnsupportedModelError",
      "m: qformer_config.is_decoder: expected true for every n-th of 12 layers, the first included, got [true,false]",
    ],
  ];
  for (const [change, name, message] of refused) {
    assert.throws(() => visualGlmConfig("m", { ...published, ...change }), { name, message });
  }
  assert.throws(() => visualGlmConfig("m", { ...published, hidden_size: undefined }), {
    name: "ConfigError",
    message: /hidden_size/,
  });
  const { text, vision } = visualGlmConfig(
    "m",
    JSON.parse(await readFile(path.join(glmFolder, "config.json"), "utf8")),
  );
  assert.deepEqual([text.normEps, vision.normEps, text.maxPositions], [0.02, 0.03, 150]);
});

test("which layers of the Q-Former read the image: as is_decoder says, every second one without it", () => {
  const frequency = (is_decoder: unknown) =>
    visualGlmConfig("m", { ...published, qformer_config: { ...published.qformer_config, is_decoder } }).qFormer
      .crossAttentionFrequency;
  assert.equal(frequency(undefined), 2);
  assert.equal(frequency(true), 1);
  assert.equal(frequency(Array.from({ length: 12 }, (_, i) => i % 3 === 0)), 3);
  assert.equal(frequency(Array.from({ length: 12 }, (_, i) => i === 0)), 12);
  assert.throws(() => frequency(false), { name: "UnsupportedModelError" });
});

test("images: BLIP's constants on the ViT's square where there is no file, the file's where there is one", () => {
  const { height, mean, std, resample } = visualGlmImageSettings("m", null, 224);
  assert.deepEqual([height, resample], [224, "bicubic"]);
  assert.deepEqual([...mean, ...std], [0.48145466, 0.4578275, 0.40821073, 0.26862954, 0.26130258, 0.27577711]);
  const given = visualGlmImageSettings("m", { size: 224, image_mean: [0, 0, 0] }, 224);
  assert.deepEqual(given.mean, [0, 0, 0]);
  assert.throws(() => visualGlmImageSettings("m", { size: 384 }, 224), { name: "UnsupportedModelError" });
  assert.equal(visualGlmImageSettings("m", { size: 384 }, 224, true).width, 224);
});
