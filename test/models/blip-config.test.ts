import assert from "node:assert/strict";
import { test } from "node:test";
import { blipConfig, blipVqaConfig } from "../../src/models/blip-config.ts";
import { UnsupportedModelError } from "../../src/models/errors.ts";
import { ConfigError } from "../../src/weights/errors.ts";

test("a file that says nothing gives the class's defaults: eight text heads, twelve of the ViT", () => {
  for (const json of [{}, { vision_config: {}, text_config: {} }, { vision_config: null, text_config: null }]) {
    assert.deepEqual(blipConfig("m", json), {
      vision: {
        width: 768,
        mlpWidth: 3072,
        layers: 12,
        heads: 12,
        imageSize: 384,
        trainedSize: 384,
        patchSize: 16,
        normEps: 1e-5,
        lastNormEps: 1e-5,
        qkvBias: true,
      },
      text: {
        vocabulary: 30524,
        width: 768,
        mlpWidth: 3072,
        layers: 12,
        heads: 8,
        maxPositions: 512,
        normEps: 1e-12,
        memoryWidth: 768,
        startId: 30522,
        stopIds: [102],
        tied: true,
      },
      projectionWidth: 256,
    });
  }
});

test("every size is read from its own key", () => {
  const config = blipConfig("m", {
    image_text_hidden_size: 10,
    vision_config: {
      hidden_size: 22,
      intermediate_size: 23,
      num_hidden_layers: 24,
      num_attention_heads: 11,
      image_size: 28,
      patch_size: 7,
      layer_norm_eps: 0.5,
    },
    text_config: {
      vocab_size: 41,
      hidden_size: 33,
      encoder_hidden_size: 99,
      intermediate_size: 34,
      num_hidden_layers: 35,
      num_attention_heads: 3,
      max_position_embeddings: 36,
      layer_norm_eps: 0.25,
      bos_token_id: 37,
      sep_token_id: 38,
      eos_token_id: 39,
      tie_word_embeddings: false,
    },
  });
  assert.deepEqual(config, {
    vision: {
      width: 22,
      mlpWidth: 23,
      layers: 24,
      heads: 11,
      imageSize: 28,
      trainedSize: 28,
      patchSize: 7,
      normEps: 0.5,
      lastNormEps: 0.5,
      qkvBias: true,
    },
    text: {
      vocabulary: 41,
      width: 33,
      mlpWidth: 34,
      layers: 35,
      heads: 3,
      maxPositions: 36,
      normEps: 0.25,
      memoryWidth: 22, // the vision width wins over encoder_hidden_size
      startId: 37,
      stopIds: [38], // not eos_token_id
      tied: false,
    },
    projectionWidth: 10,
  });
});

test("what is not built is refused in one sentence that names it", () => {
  const cases: [Record<string, unknown>, RegExp][] = [
    [{ vision_config: { hidden_act: "quick_gelu" } }, /vision_config\.hidden_act: expected gelu, got quick_gelu/],
    [{ text_config: { hidden_act: "gelu_new" } }, /text_config\.hidden_act: expected gelu, got gelu_new/],
    [{ text_config: { position_embedding_type: "relative_key" } }, /expected absolute, got relative_key/],
    [{ text_config: { is_decoder: false } }, /text_config\.is_decoder: expected true, got false/],
    [{ text_config: { num_attention_heads: 7 } }, /text_config.*expected a divisor of the hidden size 768, got 7/],
    [{ vision_config: { num_attention_heads: 5 } }, /vision_config.*expected a divisor of the hidden size 768, got 5/],
  ];
  for (const [json, message] of cases) {
    for (const read of [blipConfig, blipVqaConfig]) {
      assert.throws(
        () => read("m", json),
        (error: Error) => {
          assert.ok(error instanceof UnsupportedModelError, String(error));
          assert.match(error.message, message);
          assert.ok(!error.message.includes("\n"));
          return true;
        },
      );
    }
  }
  assert.throws(() => blipConfig("m", { text_config: { sep_token_id: "[SEP]" } }), ConfigError);
});

test("questions need an image as wide as the text; captions do not", () => {
  const json = { vision_config: { hidden_size: 1024, num_attention_heads: 16 } };
  assert.equal(blipConfig("m", json).text.memoryWidth, 1024);
  assert.throws(() => blipVqaConfig("m", json), {
    name: "UnsupportedModelError",
    message: /^m: text_config\.hidden_size: expected 1024 as vision_config\.hidden_size says, because .*, got 768$/,
  });
});
