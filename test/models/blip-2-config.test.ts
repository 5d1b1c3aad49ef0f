import assert from "node:assert/strict";
import { test } from "node:test";
import { blip2Config, blip2ImageSettings, blip2RetrievalConfig } from "../../src/models/blip-2-config.ts";
import { classDefaults } from "../../src/models/class-defaults.ts";
import { UnsupportedModelError } from "../../src/models/errors.ts";
import { ConfigError } from "../../src/weights/errors.ts";
import { readJson } from "../fixture-files.ts";

const least = { model_type: "blip-2", image_token_index: 7 };

test("the table of class defaults is what transformers 4.57.6 prints", async () => {
  const printed = await readJson<Record<string, Record<string, unknown>>>("class-defaults.json");
  for (const [name, defaults] of Object.entries(classDefaults)) {
    for (const [key, value] of Object.entries(defaults))
      assert.deepEqual(printed[name]?.[key], value, `${name}.${key}`);
  }
});

test("a file that says next to nothing gives the defaults", () => {
  const config = blip2Config("m", least);
  assert.deepEqual(config.vision, {
    width: 1408,
    mlpWidth: 6144,
    layers: 39,
    heads: 16,
    imageSize: 224,
    trainedSize: 224,
    patchSize: 14,
    normEps: 1e-6,
    lastNormEps: 1e-6,
    qkvBias: true,
  });
  assert.deepEqual(config.qFormer, {
    width: 768,
    mlpWidth: 3072,
    layers: 12,
    heads: 12,
    imageWidth: 1408,
    crossAttentionFrequency: 2,
    normEps: 1e-12,
  });
  assert.equal(config.queries, 32);
  assert.equal(config.text.width, 768);
  assert.deepEqual(config.text.stopIds, [2]);
});

test("every size is read from its own key", () => {
  const config = blip2Config("m", {
    image_token_id: 9,
    num_query_tokens: 5,
    vision_config: {
      hidden_size: 22,
      intermediate_size: 23,
      num_hidden_layers: 24,
      num_attention_heads: 11,
      image_size: 28,
      patch_size: 7,
      layer_norm_eps: 0.5,
      qkv_bias: false,
    },
    qformer_config: {
      hidden_size: 33,
      intermediate_size: 34,
      num_hidden_layers: 35,
      num_attention_heads: 3,
      encoder_hidden_size: 99,
      cross_attention_frequency: 4,
      layer_norm_eps: 0.25,
    },
  });
  const vision = {
    width: 22,
    mlpWidth: 23,
    layers: 24,
    heads: 11,
    imageSize: 28,
    trainedSize: 28,
    patchSize: 7,
    normEps: 0.5,
    lastNormEps: 0.5,
    qkvBias: false,
  };
  assert.deepEqual(config.vision, vision);
  const { qFormer, queries, imageId } = config;
  assert.deepEqual(qFormer, {
    width: 33,
    mlpWidth: 34,
    layers: 35,
    heads: 3,
    imageWidth: 22, // the vision width wins over encoder_hidden_size
    crossAttentionFrequency: 4,
    normEps: 0.25,
  });
  assert.deepEqual([queries, imageId], [5, 9]);
});

test("what is not built is refused in one sentence that names it", () => {
  const cases: [Record<string, unknown>, RegExp][] = [
    [{ text_config: { model_type: "t5" } }, /expected BLIP-2 with the language model opt, got t5/],
    [{ vision_config: { hidden_act: "quick_gelu" } }, /vision_config\.hidden_act: expected gelu, got quick_gelu/],
    [{ qformer_config: { hidden_act: "gelu_new" } }, /qformer_config\.hidden_act: expected gelu, got gelu_new/],
    [{ qformer_config: { position_embedding_type: "relative_key" } }, /expected absolute, got relative_key/],
    [{ qformer_config: { use_qformer_text_input: true } }, /use_qformer_text_input: expected false, got true/],
    [{ vision_config: { num_attention_heads: 5 } }, /expected a divisor of the hidden size 1408, got 5/],
    [{ image_token_index: null }, /expected the id of <image>, got none/],
    [{ text_config: { do_layer_norm_before: false } }, /do_layer_norm_before: expected true/],
  ];
  for (const [change, message] of cases) {
    assert.throws(
      () => blip2Config("m", { ...least, ...change }),
      (error: Error) => {
        assert.ok(error instanceof UnsupportedModelError, String(error));
        assert.match(error.message, message);
        assert.ok(!error.message.includes("\n"));
        return true;
      },
    );
  }
});

const leastRetrieval = {
  model_type: "blip-2",
  architectures: ["Blip2ForImageTextRetrieval"],
  qformer_config: { use_qformer_text_input: true },
};

test("retrieval: defaults, own keys, and no image id is needed", () => {
  const { text, projectionWidth, queries, qFormer } = blip2RetrievalConfig("m", leastRetrieval);
  assert.deepEqual(text, { vocabulary: 30522, maxPositions: 512 });
  assert.deepEqual([projectionWidth, queries, qFormer.width, qFormer.imageWidth], [256, 32, 768, 1408]);
  const own = blip2RetrievalConfig("m", {
    ...leastRetrieval,
    image_token_index: null,
    image_text_hidden_size: 24,
    num_query_tokens: 5,
    qformer_config: { use_qformer_text_input: true, vocab_size: 99, max_position_embeddings: 21 },
    // A language model is named in such files and is not there.
    text_config: { model_type: "opt" },
  });
  assert.deepEqual([own.text, own.projectionWidth, own.queries], [{ vocabulary: 99, maxPositions: 21 }, 24, 5]);
});

test("retrieval: what is not built is refused", () => {
  const cases: [Record<string, unknown>, RegExp][] = [
    [{ qformer_config: {} }, /use_qformer_text_input: expected true, got false/],
    [
      { qformer_config: { use_qformer_text_input: true, position_embedding_type: "relative_key" } },
      /position_embedding_type: expected absolute, got relative_key/,
    ],
  ];
  for (const [change, message] of cases) {
    assert.throws(() => blip2RetrievalConfig("m", { ...leastRetrieval, ...change }), {
      name: "UnsupportedModelError",
      message,
    });
  }
});

test("a malformed file names every key that is wrong", () => {
  const bad = { ...least, num_query_tokens: "x", vision_config: { hidden_size: -1, patch_size: 1.5 } };
  assert.throws(
    () => blip2Config("m", bad),
    (error: Error) => {
      assert.ok(error instanceof ConfigError);
      assert.match(error.message, /num_query_tokens: .*vision_config\.hidden_size: .*vision_config\.patch_size: /);
      return true;
    },
  );
});

test("preprocessing: defaults, both spellings of size, and what is refused", () => {
  const settings = blip2ImageSettings("m", { size: { height: 28, width: 28 } }, 28);
  assert.deepEqual(settings, {
    height: 28,
    width: 28,
    resample: "bicubic",
    rescale: 1 / 255,
    mean: [0.48145466, 0.4578275, 0.40821073],
    std: [0.26862954, 0.26130258, 0.27577711],
  });
  const own = {
    size: 28,
    rescale_factor: 0.5,
    image_mean: [1, 2, 3],
    image_std: [4, 5, 6],
    image_processor_type: "BlipImageProcessorFast",
  };
  assert.deepEqual(blip2ImageSettings("m", own, 28), {
    height: 28,
    width: 28,
    resample: "bicubic",
    rescale: 0.5,
    mean: [1, 2, 3],
    std: [4, 5, 6],
  });
  const refused: [Record<string, unknown>, RegExp][] = [
    [
      { size: 30 },
      /size: expected 28 x 28 as vision_config\.image_size says \(or a size that is chosen with --image-size\), got 30 x 30/,
    ],
    [{}, /got 384 x 384/],
    [{ size: 28, resample: 2 }, /resample: expected 3 \(bicubic\), got 2/],
    [{ size: 28, do_resize: false }, /do_resize: expected true/],
    [{ size: 28, do_rescale: false }, /do_rescale: expected true/],
    [{ size: 28, do_normalize: false }, /do_normalize: expected true/],
    [{ size: 28, image_processor_type: "CLIPImageProcessor" }, /expected BlipImageProcessor, got CLIPImageProcessor/],
  ];
  for (const [json, message] of refused) {
    assert.throws(
      () => blip2ImageSettings("m", json, 28),
      (error: Error) => {
        assert.ok(error instanceof UnsupportedModelError, String(error));
        assert.match(error.message, message);
        return true;
      },
    );
  }
  assert.throws(() => blip2ImageSettings("m", null, 28), ConfigError);
  assert.throws(() => blip2ImageSettings("m", { size: { shortest_edge: 28 } }, 28), ConfigError);
});

test("numbers that would cost their own length in memory are refused, and a deviation of zero", () => {
  for (const [key, type] of [
    ["vision_config", ConfigError],
    ["qformer_config", ConfigError],
    ["text_config", UnsupportedModelError],
  ] as const) {
    const json = { ...least, [key]: { num_hidden_layers: 1e9 } };
    assert.throws(
      () => blip2Config("m", json),
      (error: Error) =>
        error instanceof type && new RegExp(`^m: .*${key}.num_hidden_layers: .*1000`).test(error.message),
      key,
    );
    assert.ok(blip2Config("m", { ...least, [key]: { num_hidden_layers: 1000 } }));
  }
  const flat = { size: 224, image_std: [0.2, 0, 0.2] };
  assert.throws(() => blip2ImageSettings("m", flat, 224), { name: "ConfigError", message: /image_std.1: .*>0/ });
});
