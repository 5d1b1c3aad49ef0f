import assert from "node:assert/strict";
import { test } from "node:test";
import { classDefaults } from "../../src/models/class-defaults.ts";
import { UnsupportedModelError } from "../../src/models/errors.ts";
import {
  instructBlipImageSettings,
  instructBlipLlamaConfig,
  instructBlipT5Config,
} from "../../src/models/instructblip-config.ts";
import { llamaConfig } from "../../src/models/llama-config.ts";
import { ConfigError } from "../../src/weights/errors.ts";

const least = { model_type: "instructblip", image_token_index: 7, text_config: { model_type: "llama" } };

test("the classes of BLIP-2 and of InstructBLIP have the same defaults for the keys that are read", () => {
  const pairs = [
    ["InstructBlipVisionConfig", "Blip2VisionConfig"],
    ["InstructBlipQFormerConfig", "Blip2QFormerConfig"],
    ["InstructBlipConfig", "Blip2Config"],
  ] as const;
  for (const [own, shared] of pairs) {
    const known: Readonly<Record<string, unknown>> = classDefaults[shared];
    for (const [key, value] of Object.entries(classDefaults[own])) assert.deepEqual(known[key], value, `${own}.${key}`);
  }
});

test("what the Q-Former reads, and what is shared with BLIP-2", () => {
  const { instruction, queries, imageId, vision, qFormer } = instructBlipLlamaConfig("m", least);
  assert.deepEqual(
    { instruction, queries, imageId },
    {
      instruction: { vocabulary: 30522, maxPositions: 512 },
      queries: 32,
      imageId: 7,
    },
  );
  assert.deepEqual([vision.width, qFormer.width, qFormer.imageWidth], [1408, 768, 1408]);
  const own = { vocab_size: 91, max_position_embeddings: 33 };
  const config = instructBlipLlamaConfig("m", { ...least, qformer_config: own });
  assert.deepEqual(config.instruction, { vocabulary: 91, maxPositions: 33 });
});

test("another language model, and a file without the id of <image>, are refused", () => {
  assert.throws(() => instructBlipT5Config("m", least), {
    name: "UnsupportedModelError",
    message: "m: expected InstructBLIP with the language model t5, got llama",
  });
  // The class's default.
  assert.throws(() => instructBlipLlamaConfig("m", { ...least, text_config: null }), {
    message: "m: expected InstructBLIP with the language model llama, got opt",
  });
  assert.throws(
    () => instructBlipLlamaConfig("m", { ...least, image_token_index: null }),
    /expected the id of <image>/,
  );
  assert.throws(() => instructBlipLlamaConfig("m", { ...least, num_query_tokens: "x" }), ConfigError);
});

test("the class of image processor that a file names does not matter, as in transformers", () => {
  const size = { height: 224, width: 224 };
  const settings = instructBlipImageSettings(
    "m",
    { image_processor_type: "InstructBlipVideoImageProcessor", size },
    224,
  );
  assert.deepEqual([settings.height, settings.width, settings.resample], [224, 224, "bicubic"]);
  assert.throws(() => instructBlipImageSettings("m", null, 224), ConfigError);
  assert.throws(() => instructBlipImageSettings("m", { size, do_resize: false }, 224), UnsupportedModelError);
});

test("text_config of Llama: defaults, and every size from its own key", () => {
  assert.deepEqual(llamaConfig({}), {
    vocabulary: 32000,
    width: 4096,
    layers: 32,
    heads: 32,
    headWidth: 128,
    ffnWidth: 11008,
    maxPositions: 2048,
    rotaryBase: 10000,
    normEps: 1e-6,
    tied: false,
    stopIds: [2],
  });
  const own = {
    vocab_size: 11,
    hidden_size: 60,
    num_hidden_layers: 12,
    num_attention_heads: 5,
    num_key_value_heads: 5,
    head_dim: 12,
    intermediate_size: 13,
    max_position_embeddings: 14,
    rope_theta: 15,
    rope_scaling: { rope_type: "default" },
    rms_norm_eps: 0.5,
    tie_word_embeddings: true,
    eos_token_id: [3, 4],
  };
  assert.deepEqual(llamaConfig(own), {
    vocabulary: 11,
    width: 60,
    layers: 12,
    heads: 5,
    headWidth: 12,
    ffnWidth: 13,
    maxPositions: 14,
    rotaryBase: 15,
    normEps: 0.5,
    tied: true,
    stopIds: [3, 4],
  });
  assert.deepEqual(llamaConfig({ eos_token_id: null }).stopIds, []);
});

test("variants of Llama that are not built are refused by their key", () => {
  for (const [key, value, message] of [
    [
      "num_key_value_heads",
      8,
      /^m: text_config\.num_key_value_heads: expected 32 \(.*grouped queries are not built\), got 8$/,
    ],
    ["head_dim", 64, /head_dim: expected 128 .*, got 64/],
    [
      "rope_scaling",
      { rope_type: "llama3", factor: 8 },
      /rope_scaling: expected null \(scaled rotary positions are not built\), got \{/,
    ],
    ["hidden_act", "gelu", /hidden_act: expected "silu" .*, got "gelu"/],
    ["attention_bias", true, /attention_bias: expected false/],
    ["mlp_bias", true, /mlp_bias: expected false/],
    ["num_attention_heads", 3, /num_attention_heads: expected a divisor of the hidden size 4096/],
    ["num_attention_heads", 4096, /heads of an even width/],
    ["vocab_size", 0, /vocab_size: expected a positive whole number, got 0/],
    ["num_hidden_layers", 1001, /expected at most 1000/],
    ["rope_theta", 0, /rope_theta: expected a number above 0/],
    ["rms_norm_eps", "x", /rms_norm_eps: expected a number above 0/],
    ["tie_word_embeddings", "yes", /tie_word_embeddings: expected true or false/],
    ["eos_token_id", [-1], /eos_token_id: expected an id or a list of ids/],
  ] as const) {
    assert.throws(
      () => llamaConfig({ [key]: value }, "m"),
      (error) => {
        assert.ok(error instanceof UnsupportedModelError);
        assert.match(error.message, message);
        return true;
      },
    );
  }
});
