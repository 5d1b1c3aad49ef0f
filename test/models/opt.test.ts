// OPT's two readings, prompts and single tokens, against an f64 forward pass over whole sequences.

import assert from "node:assert/strict";
import { after, test } from "node:test";
import { adapterLine } from "../../src/gpu/adapter.ts";
import { openGpu } from "../../src/gpu/device.ts";
import type { ElementType, Tensor } from "../../src/gpu/tensor.ts";
import { none } from "../../src/kernels/decode-state.ts";
import { UnsupportedModelError } from "../../src/models/errors.ts";
import { optConfig } from "../../src/models/opt-config.ts";
import { expectClose, roundF16 } from "../kernels/harness.ts";
import { optLogits } from "../reference/opt.ts";
import { loadTinyOpt, tinyModels } from "./tiny-opt.ts";

const gpu = await openGpu({ nap: true });
process.stderr.write(`adapter: ${adapterLine(gpu.report)}\n`);
after(() => gpu.close());

async function upload(name: string, shape: readonly number[], values: readonly number[], type: ElementType) {
  const tensor = gpu.alloc(name, shape, type);
  const words = type === "f32" ? Float32Array.from(values) : Uint32Array.from(values);
  await gpu.upload(tensor, new Uint8Array(words.buffer));
  return tensor;
}

async function floats(tensor: Tensor): Promise<Float32Array> {
  return new Float32Array(await gpu.read(tensor));
}

for (const { name, queries } of tinyModels) {
  for (const type of ["f32", "f16"] as const) {
    test(`${name}, ${type}: logits after two padded prompts, then after three more ids each`, async () => {
      const tiny = await loadTinyOpt(gpu, name, { type, headColumns: 24 });
      const { model, config, weights } = tiny;
      const texts = [[2, 11, 30, 8, 3], [2]];
      const more = [
        [4, 17, 1],
        [39, 2, 2],
      ];
      const tokens = queries + 6;
      const positions = tokens + 4;
      const cacheRows = 2 * positions;
      // The cache starts as NaN: whoever reads a place that was not written shows it.
      const stride = type === "f16" ? Math.ceil(config.width / 2) * 2 : config.width;
      const nothing = new Array((cacheRows * stride) / (type === "f16" ? 2 : 1)).fill(0x7fc07fc0);
      const cacheTensor = async () => ({
        ...(await upload("cache", [nothing.length], nothing, "u32")),
        shape: [cacheRows, stride],
        type,
      });
      const cache = await Promise.all(
        weights.layers.map(async () => ({ keys: await cacheTensor(), values: await cacheTensor() })),
      );
      // Position p of sequence s lies in slot 2 * p + s.
      const slots = Array.from({ length: 2 * positions }, (_, i) => 2 * (i % positions) + Math.floor(i / positions));
      const table = await upload("table", [2, positions], slots, "u32");
      const rows = texts.flatMap((text, s) =>
        Array.from({ length: tokens }, (_, t) => {
          if (t >= queries + text.length) return [none, none, none, 0];
          return [t < queries ? none : (text[t - queries] ?? none), t, 2 * t + s, s];
        }),
      );
      const prompts = [tiny.prompt(0), tiny.prompt(1)];
      const promptStride = Math.ceil((queries * config.width) / 2) * 2;
      const prompt = gpu.alloc("prompt", [2, promptStride], type);
      for (const [s, { bytes }] of prompts.entries()) {
        await gpu.upload(prompt, bytes, s * promptStride * (type === "f16" ? 2 : 4));
      }
      const lastRows = texts.map((text, s) => s * tokens + queries + text.length - 1);
      const cursors = await upload("cursors", [2 * tokens, 4], rows.flat(), "u32");
      const lastRowsTensor = await upload("lastRows", [2], lastRows, "u32");
      const first = await gpu.record("prompts", (k) =>
        model.readPrompts(k, { cursors, table, cache, prompt, lastRows: lastRowsTensor }),
      );
      await gpu.submit([first]);
      const got = [await floats(first.result)];
      const next = gpu.alloc("next", [2, 4], "u32");
      const second = await gpu.record("tokens", (k) => model.readTokens(k, { cursors: next, table, cache }));
      for (let n = 0; n < 3; n++) {
        const cursor = texts.flatMap((text, s) => {
          const position = queries + text.length + n;
          return [more[s]?.[n] ?? none, position, 2 * position + s, s];
        });
        await gpu.upload(next, new Uint8Array(Uint32Array.from(cursor).buffer));
        await gpu.submit([second]);
        got.push(await floats(second.result));
      }

      const round = type === "f16" ? roundF16 : (value: number) => value;
      const reference = {
        heads: config.heads,
        layers: config.layers,
        eps: config.normEps,
        tensor: (key: string) => tiny.tensors.get(key) ?? assert.fail(`no ${key}`),
        round,
        roundPosition: weights.positions.type === "f16" ? roundF16 : (value: number) => value,
      };
      const images = tiny.tensors.get("prompts")?.values ?? [];
      for (const [s, text] of texts.entries()) {
        const slots = Array.from({ length: queries }, (_, t) =>
          Array.from({ length: config.width }, (_, d) =>
            round(images[(s * queries + t) * config.width + d] ?? Number.NaN),
          ),
        );
        const logits = optLogits(reference, slots, [...text, ...(more[s] ?? [])]);
        for (let n = 0; n <= 3; n++) {
          const row = (got[n] ?? []).slice(s * model.vocabulary, (s + 1) * model.vocabulary);
          expectClose(
            row,
            logits[queries + text.length - 1 + n] ?? [],
            type === "f32"
              ? { absolute: 1e-4, relative: 1e-4, reason: "f32 sums of some tens of terms through up to 3 layers" }
              : { absolute: 2e-2, relative: 2e-2, reason: "an f32 rounding can move an input across one step of f16" },
          );
        }
      }
      first.destroy();
      second.destroy();
    });
  }
}

test("text_config: defaults, one id or a list to end with, variants that are not built", () => {
  const defaults = optConfig({});
  assert.deepEqual(
    { ...defaults },
    {
      vocabulary: 50272,
      width: 768,
      layers: 12,
      heads: 12,
      ffnWidth: 3072,
      maxPositions: 2048,
      normEps: 1e-5,
      bosId: 2,
      stopIds: [2],
    },
  );
  assert.deepEqual(optConfig({ eos_token_id: 50118 }).stopIds, [50118]);
  assert.deepEqual(optConfig({ eos_token_id: [1, 2] }).stopIds, [1, 2]);
  assert.deepEqual(optConfig({ eos_token_id: null }).stopIds, []);
  assert.equal(optConfig({ word_embed_proj_dim: null }).width, 768);
  for (const [key, value] of [
    ["word_embed_proj_dim", 512],
    ["activation_function", "gelu"],
    ["do_layer_norm_before", false],
    ["_remove_final_layer_norm", true],
    ["enable_bias", false],
    ["layer_norm_elementwise_affine", false],
    ["tie_word_embeddings", false],
    ["num_attention_heads", 7],
    ["num_attention_heads", 0],
    ["hidden_size", "768"],
    ["eos_token_id", "</s>"],
    ["eos_token_id", [2, -1]],
  ] as const) {
    assert.throws(
      () => optConfig({ [key]: value }),
      (error) => error instanceof UnsupportedModelError && error.message.includes(`text_config.${key}: expected`),
      `${key} = ${JSON.stringify(value)}`,
    );
  }
});
