import assert from "node:assert/strict";
import { test } from "node:test";
import { clipConfig, clipImageSettings, endToken } from "../../src/models/clip-config.ts";

test("a file that says nothing gives the defaults, which are ViT-B/32", () => {
  const { vision, text, projectionWidth } = clipConfig("m", { model_type: "clip" });
  const both = { layers: 12, normEps: 1e-5, activation: "quick gelu" };
  assert.deepEqual(vision, {
    ...both,
    width: 768,
    mlpWidth: 3072,
    heads: 12,
    imageSize: 224,
    trainedSize: 224,
    lastNormEps: 1e-5,
    patchSize: 32,
  });
  assert.deepEqual(text, {
    ...both,
    ...{ width: 512, mlpWidth: 2048, heads: 8, vocabulary: 49408, maxPositions: 77, eosId: 49407 },
  });
  assert.equal(projectionWidth, 512);
});

const vision = {
  hidden_size: 22,
  intermediate_size: 23,
  num_hidden_layers: 24,
  num_attention_heads: 11,
  image_size: 28,
  patch_size: 7,
  hidden_act: "gelu",
  layer_norm_eps: 0.5,
};
const text = {
  hidden_size: 26,
  intermediate_size: 27,
  num_hidden_layers: 3,
  num_attention_heads: 13,
  vocab_size: 99,
  max_position_embeddings: 21,
  eos_token_id: 2,
  layer_norm_eps: 0.25,
};
const own = {
  vision: {
    width: 22,
    mlpWidth: 23,
    layers: 24,
    heads: 11,
    imageSize: 28,
    trainedSize: 28,
    patchSize: 7,
    activation: "gelu",
    normEps: 0.5,
    lastNormEps: 0.5,
  },
  text: {
    ...{ width: 26, mlpWidth: 27, layers: 3, heads: 13, vocabulary: 99, maxPositions: 21, eosId: 2 },
    ...{ activation: "quick gelu", normEps: 0.25 },
  },
  projectionWidth: 10,
};

test("every size is read from its own key; the older second record wins, defaults included", () => {
  const read = clipConfig("m", { vision_config: vision, text_config: text, projection_dim: 10 });
  assert.deepEqual(read, own);
  // The width inside is of the encoders alone, and CLIPModel does not ask it.
  const inner = clipConfig("m", {
    vision_config: { ...vision, projection_dim: 9 },
    text_config: text,
    projection_dim: 10,
  });
  assert.deepEqual(inner, own);
  const older = clipConfig("m", {
    vision_config: { hidden_size: 1, image_size: 5 },
    vision_config_dict: vision,
    text_config: { hidden_act: "gelu", hidden_size: 1 },
    text_config_dict: text,
    projection_dim: 10,
  });
  assert.deepEqual(older, own);
  const none = clipConfig("m", {
    vision_config: vision,
    vision_config_dict: null,
    text_config: text,
    projection_dim: 10,
  });
  assert.deepEqual(none, own);
});

test("what is not built is refused in one sentence that names it", () => {
  for (const [json, type, message] of [
    [
      { vision_config: { hidden_act: "gelu_new" } },
      "Unsupported",
      /vision_config\.hidden_act: expected quick_gelu or gelu, got gelu_new/,
    ],
    [
      { text_config: { num_attention_heads: 5 } },
      "Unsupported",
      /text_config\.num_attention_heads: expected a divisor of the hidden size 512, got 5/,
    ],
    [{ vision_config: { num_channels: 4 } }, "Config", /vision_config\.num_channels/],
    [{ text_config: { num_hidden_layers: 1e9 } }, "Config", /text_config\.num_hidden_layers: .*1000/],
    [{ projection_dim: -1, text_config: 3 }, "Config", /projection_dim: .*; text_config: /],
  ] as const) {
    const name = type === "Config" ? "ConfigError" : "UnsupportedModelError";
    assert.throws(() => clipConfig("m", json), { name, message });
  }
});

test("the end token: the first with the id, or with the largest where the configuration has the old 2", () => {
  const ids = [90, 5, 2, 91, 7, 91, 95];
  assert.equal(endToken({ eosId: 91 }, ids), 3);
  assert.equal(endToken({ eosId: 2 }, ids), 6);
  assert.equal(endToken({ eosId: 2 }, [90, 95, 7, 95]), 1);
  assert.equal(endToken({ eosId: 95 }, [90, 5]), 0);
});

test("preprocessing: defaults, both spellings, an edge longer than the square, and what is refused", () => {
  const settings = {
    height: 224,
    width: 224,
    shortestEdge: 224,
    resample: "bicubic",
    rescale: 1 / 255,
    mean: [0.48145466, 0.4578275, 0.40821073],
    std: [0.26862954, 0.26130258, 0.27577711],
  };
  assert.deepEqual(clipImageSettings("m", {}, 224), settings);
  const old = { feature_extractor_type: "CLIPFeatureExtractor", size: 256, crop_size: 224 };
  assert.deepEqual(clipImageSettings("m", old, 224), { ...settings, shortestEdge: 256 });
  assert.deepEqual(
    clipImageSettings("m", old, 224, true),
    { ...settings, shortestEdge: 256 },
    "to choose what the file says changes nothing",
  );
  assert.deepEqual(clipImageSettings("m", old, 112, true), { ...settings, height: 112, width: 112, shortestEdge: 112 });
  const whole = {
    image_processor_type: "CLIPImageProcessorFast",
    size: { shortest_edge: 28 },
    crop_size: { height: 28, width: 28 },
  };
  assert.deepEqual(clipImageSettings("m", whole, 28), { ...settings, height: 28, width: 28, shortestEdge: 28 });
  for (const [change, message] of [
    [{ image_processor_type: "BlipImageProcessor" }, /expected CLIPImageProcessor, got BlipImageProcessor/],
    [{ size: 200 }, /size: expected a shortest_edge of at least 224, got \{"shortest_edge":200\}/],
    [{ size: { height: 224, width: 224 } }, /size: expected a shortest_edge of at least 224/],
    [{ crop_size: 200 }, /crop_size: expected 224 x 224 as vision_config\.image_size says, got 200 x 200/],
    [{ do_center_crop: false }, /do_center_crop: expected true, got false/],
    [{ do_resize: false }, /do_resize: expected true/],
    [{ resample: 2 }, /resample: expected 3 \(bicubic\), got 2/],
  ] as const) {
    assert.throws(() => clipImageSettings("m", change, 224), { name: "UnsupportedModelError", message });
  }
  assert.throws(() => clipImageSettings("m", null, 224), { name: "ConfigError", message: /preprocessor_config\.json/ });
  assert.throws(() => clipImageSettings("m", { image_std: [0.2, 0, 0.2] }, 224), { name: "ConfigError" });
});
