import assert from "node:assert/strict";
import { test } from "node:test";
import { UnsupportedModelError } from "../../src/models/errors.ts";
import { t5Config } from "../../src/models/t5-config.ts";

const least = { feed_forward_proj: "gated-gelu", decoder_start_token_id: 0 };

test("text_config of T5: defaults, and every size from its own key", () => {
  assert.deepEqual(t5Config(least), {
    vocabulary: 32128,
    width: 512,
    heads: 8,
    headWidth: 64,
    ffnWidth: 2048,
    encoderLayers: 6,
    decoderLayers: 6,
    relativePositions: { buckets: 32, maxDistance: 128 },
    normEps: 1e-6,
    activation: "tanh gelu",
    tied: true,
    startId: 0,
    stopIds: [1],
  });
  const own = {
    vocab_size: 11,
    d_model: 12,
    num_heads: 13,
    d_kv: 14,
    d_ff: 15,
    num_layers: 16,
    num_decoder_layers: 17,
    relative_attention_num_buckets: 18,
    relative_attention_max_distance: 19,
    layer_norm_epsilon: 0.5,
    dense_act_fn: "gelu",
    tie_word_embeddings: false,
    decoder_start_token_id: 3,
    eos_token_id: [4, 5],
  };
  assert.deepEqual(t5Config({ ...least, ...own }), {
    vocabulary: 11,
    width: 12,
    heads: 13,
    headWidth: 14,
    ffnWidth: 15,
    encoderLayers: 16,
    decoderLayers: 17,
    relativePositions: { buckets: 18, maxDistance: 19 },
    normEps: 0.5,
    activation: "gelu",
    tied: false,
    startId: 3,
    stopIds: [4, 5],
  });
});

test("as many decoder as encoder layers unless it is said", () => {
  assert.equal(t5Config({ ...least, num_layers: 2 }).decoderLayers, 2);
  assert.equal(t5Config({ ...least, num_layers: 2, num_decoder_layers: null }).decoderLayers, 2);
});

test("gated-gelu alone is tanh's gelu; dense_act_fn has the last word", () => {
  for (const [dense_act_fn, activation] of [
    [undefined, "tanh gelu"],
    ["gelu_new", "tanh gelu"],
    ["gelu_pytorch_tanh", "tanh gelu"],
    ["gelu", "gelu"],
  ] as const) {
    assert.equal(t5Config({ ...least, dense_act_fn }).activation, activation);
  }
});

test("the decoder starts with its own id, else with bos; no end at all is a choice", () => {
  const { decoder_start_token_id, ...without } = least;
  assert.equal(decoder_start_token_id, 0);
  assert.equal(t5Config({ ...without, bos_token_id: 7 }).startId, 7);
  assert.equal(t5Config({ ...least, bos_token_id: 7 }).startId, 0);
  assert.deepEqual(t5Config({ ...least, eos_token_id: null }).stopIds, []);
  assert.deepEqual(t5Config({ ...least, eos_token_id: 9 }).stopIds, [9]);
});

test("what is not built is refused in one sentence that names the key", () => {
  for (const [change, key] of [
    [{ feed_forward_proj: "relu" }, "feed_forward_proj"],
    [{ feed_forward_proj: undefined }, "feed_forward_proj"],
    [{ feed_forward_proj: "gated-silu" }, "feed_forward_proj"],
    [{ is_gated_act: false }, "feed_forward_proj"],
    [{ dense_act_fn: "relu" }, "dense_act_fn"],
    [{ decoder_start_token_id: null }, "decoder_start_token_id"],
    [{ decoder_start_token_id: -1 }, "decoder_start_token_id"],
    [{ eos_token_id: "</s>" }, "eos_token_id"],
    [{ eos_token_id: [1, -1] }, "eos_token_id"],
    [{ d_model: "512" }, "d_model"],
    [{ d_kv: 0 }, "d_kv"],
    [{ num_heads: 1.5 }, "num_heads"],
    [{ num_layers: 1001 }, "num_layers"],
    [{ num_decoder_layers: 0 }, "num_decoder_layers"],
    [{ relative_attention_num_buckets: 3 }, "relative_attention_num_buckets"],
    [{ relative_attention_max_distance: 16 }, "relative_attention_max_distance"],
    [{ relative_attention_max_distance: 1e9 }, "relative_attention_max_distance"],
    [{ layer_norm_epsilon: -1 }, "layer_norm_epsilon"],
    [{ tie_word_embeddings: "no" }, "tie_word_embeddings"],
  ] as const) {
    assert.throws(
      () => t5Config({ ...least, ...change }, "m"),
      (error) => {
        assert.ok(error instanceof UnsupportedModelError);
        assert.ok(error.message.startsWith(`m: text_config.${key}: expected `), error.message);
        return !error.message.includes("\n");
      },
      JSON.stringify(change),
    );
  }
});
