// What does not fit is refused before anything is read, with the plan's numbers: for every family, on faked sizes.

import assert from "node:assert/strict";
import { totalmem } from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import { type LikeSettings, type RandomCheckpoint, writeRandomCheckpoint } from "../../bench/random-checkpoint.ts";
import { quickForm, trueShapes } from "../../bench/true-shapes.ts";
import { adapterLine } from "../../src/gpu/adapter.ts";
import { type Gpu, openGpu } from "../../src/gpu/device.ts";
import { KernelError, OutOfMemoryError } from "../../src/gpu/errors.ts";
import type { RowProgram } from "../../src/gpu/row-program.ts";
import { MemorySettingError } from "../../src/models/errors.ts";
import type { Purpose } from "../../src/models/families.ts";
import { loadModel } from "../../src/models/load-model.ts";
import {
  availableMemory,
  bytesText,
  expectRoom,
  planBytes,
  planText,
  weightsTotal,
} from "../../src/models/memory-plan.ts";
import { checkModel } from "../../src/models/model-card.ts";
import { type Dtype, defaultGeneration } from "../../src/stages.ts";
import { openCheckpoint } from "../../src/weights/checkpoint.ts";
import { fixtures } from "../fixture-files.ts";
import { temporaryFolder } from "../weights/checkpoint-files.ts";
import { pixelsOf } from "./parity.ts";

const gpu = await openGpu({ nap: true });
process.stderr.write(`adapter: ${adapterLine(gpu.report)}\n`);
after(() => gpu.close());

const families: readonly (readonly [folder: string, purpose: Purpose, stages: string])[] = [
  ["models/blip2-opt-tiny", "texts", "encode, query, generate"],
  ["models/blip2-t5-tiny", "texts", "encode, query, generate"],
  ["instructblip/instructblip-vicuna-tiny", "texts", "encode, query, generate"],
  ["instructblip/instructblip-t5-half", "texts", "encode, query, generate"],
  ["glm/visualglm-tiny", "texts", "encode, query, generate"],
  ["blip/blip-caption-tiny", "captions", "encode, generate"],
  ["blip/blip-vqa-tiny", "answers", "encode, generate"],
  ["retrieval/blip2-itm-tiny", "matches", "encode, query"],
  ["blip/blip-itm-tiny", "matches", "encode, query"],
  ["clip/clip-tiny", "labels", "encode, query"],
];

async function planOf(folder: string, purpose: Purpose, dtype: Dtype, device: Gpu = gpu) {
  const checked = await checkModel(await openCheckpoint(path.join(fixtures, folder)), dtype, { purpose });
  return { card: checked.card, plan: checked.plan(device) };
}

for (const [folder, purpose, stages] of families) {
  test(`${folder}: fits to the byte, and is refused one byte below with every number`, async () => {
    const before = gpu.allocatedBytes;
    const { card, plan } = await planOf(folder, purpose, "f32");
    assert.equal(Object.keys(plan.weights).join(", "), stages);
    const writes = stages.endsWith("generate");
    assert.equal(plan.row.caches > 0, writes, `caches of ${plan.row.caches} bytes`);
    assert.ok(plan.row.scratch > 0);
    const needed = planBytes(plan);
    const within = (bytes: number) => ({ BLIPFLEET_MEMORY: String(bytes + gpu.allocatedBytes) });
    const planUnder = async (dtype: Dtype) => (await planOf(folder, purpose, dtype)).plan;
    await expectRoom(gpu, card, plan, planUnder, within(needed));
    await assert.rejects(expectRoom(gpu, card, plan, planUnder, within(needed - 1)), (error: Error) => {
      assert.ok(error instanceof OutOfMemoryError, String(error));
      assert.ok(error.message.includes(planText(plan)), error.message);
      return /expected at most [\d.]+ MB on .* \(BLIPFLEET_MEMORY \d+, .* in use\), got [\d.]+ MB under --dtype f32: weights encode .*; use --dtype f16 \([\d.]+ MB\) or int8 \([\d.]+ MB\) or int4 \([\d.]+ MB\), or workers/.test(
        error.message,
      );
    });
    const load = loadModel(gpu, path.join(fixtures, folder), {
      ...{ dtype: "f32", purpose },
      environment: { BLIPFLEET_MEMORY: "1kB" },
    });
    await assert.rejects(load, OutOfMemoryError);
    assert.equal(gpu.allocatedBytes, before, "nothing was allocated");
  });
}

test("a refusal names the smaller types that fit and what they take, or the least that does not", async () => {
  const folder = path.join(await temporaryFolder(), "opt");
  const checkpoint = await writeRandomCheckpoint(folder, quickForm(trueShapes["blip2-opt-2.7b"]));
  const bytes = async (dtype: Dtype) => {
    return planBytes((await checkModel(await openCheckpoint(checkpoint), dtype, { purpose: "texts" })).plan(gpu));
  };
  const [f16, int8, int4] = [await bytes("f16"), await bytes("int8"), await bytes("int4")];
  assert.ok(f16 > int8 && int8 > int4, `${[f16, int8, int4]}`);
  const refusal = async (dtype: Dtype, room: number) => {
    const environment = { BLIPFLEET_MEMORY: String(room + gpu.allocatedBytes) };
    const load = loadModel(gpu, checkpoint, { dtype, environment });
    return load.then(
      () => assert.fail("it fits"),
      (error: Error) => error.message.split("; ").slice(-2).join("; "),
    );
  };
  const others = "workers for one of its stages each (--stages), or a smaller model";
  const both = `int8 (${bytesText(int8)}) or int4 (${bytesText(int4)})`;
  assert.match(await refusal("f32", f16), new RegExp(`use --dtype f16 .*${quoted(both)}, or ${quoted(others)}$`));
  for (const dtype of ["f32", "f16"] as const) {
    assert.ok((await refusal(dtype, f16 - 1)).endsWith(`use --dtype ${both}, or ${others}`), dtype);
  }
  assert.ok((await refusal("f16", int8 - 1)).endsWith(`use --dtype int4 (${bytesText(int4)}), or ${others}`));
  const least = `no smaller --dtype fits, the least is int4 (${bytesText(int4)}); use ${others}`;
  assert.equal(await refusal("f16", int4 - 1), least);
  assert.ok((await refusal("int4", int4 - 1)).endsWith(`; use ${others}`));
  assert.doesNotMatch(await refusal("int4", int4 - 1), /fits/);
});

test("a type that the model cannot have is not named, nor workers for stages that do not fit", async () => {
  const quick = quickForm(trueShapes["blip2-opt-2.7b"]);
  const odd: RandomCheckpoint = {
    ...quick,
    config(like) {
      const config = quick.config(like) as LikeSettings;
      return {
        ...config,
        vision_config: { ...config.vision_config, hidden_size: 33, num_attention_heads: 3 },
        qformer_config: { ...config.qformer_config, encoder_hidden_size: 33 },
      };
    },
  };
  const checkpoint = await writeRandomCheckpoint(path.join(await temporaryFolder(), "odd"), odd);
  // generate alone takes 4.9 MB
  for (const [room, ways] of [
    ["6MB", "workers for one of its stages each \\(--stages\\), or a smaller model"],
    ["1MB", "a smaller model"],
  ] as const) {
    const environment = { BLIPFLEET_MEMORY: room };
    await assert.rejects(loadModel(gpu, checkpoint, { dtype: "f32", environment }), {
      name: "OutOfMemoryError",
      message: new RegExp(`under --dtype f32: .* MB; use ${ways}$`),
    });
  }
});

/** A text as it stands in a regular expression. */
function quoted(text: string): string {
  return text.replace(/[().-]/g, "\\$&");
}

test("caches of an encoder-decoder model count what its cross-attention reads, too", async () => {
  const { plan } = await planOf("models/blip2-t5-tiny", "texts", "f32");
  // 2 layers of keys and values of 3 heads of 5: the first id, 32 new ones; 5 queries and up to 32 ids of text in the memory.
  assert.equal(plan.row.caches, 2 * 2 * (1 + 32 + 5 + 32) * 15 * 4);
  const { plan: decoder } = await planOf("models/blip2-opt-tiny", "texts", "f16");
  // 2 layers of width 40: 5 queries, up to 32 ids of text, 32 new ones.
  assert.equal(decoder.row.caches, 2 * 2 * (5 + 32 + 32) * 40 * 2);
});

test("what a row takes is what is allocated for it, about", async () => {
  const folder = await temporaryFolder();
  for (const [shapes, dtype] of [
    ["blip2-opt-2.7b", "f32"],
    ["blip2-flan-t5-xl", "f16"],
  ] as const) {
    const checkpoint = await writeRandomCheckpoint(path.join(folder, shapes), quickForm(trueShapes[shapes]));
    const device = await openGpu({ nap: true });
    const model = await loadModel(device, checkpoint, { dtype });
    const { encodeAndQuery, generate } = model.programs;
    const prompt = await one(encodeAndQuery, await pixelsOf("shapes.png", model.card.image));
    const ids = await one(generate, { prompt, textIds: [2], generation: defaultGeneration });
    assert.ok(ids.length > 0);
    const taken = device.allocatedBytes - weightsTotal({ weights: model.memory });
    const planned = model.rowBytes.caches + model.rowBytes.scratch;
    assert.ok(taken > planned / 3 && taken < planned * 3, `${shapes}: planned ${planned}, allocated ${taken}`);
    model.release();
    device.close();
  }
});

async function one<In, Out>(program: RowProgram<In, Out> | undefined, row: In): Promise<Out> {
  assert.ok(program);
  const batch = program.start([row]);
  for (;;) {
    const [result] = await batch.step(new Set());
    if (result === undefined) continue;
    batch.release();
    if ("error" in result) throw result.error;
    return result.value;
  }
}

test("a weight that the adapter cannot bind is refused by name before anything is allocated", async () => {
  const limited = (bindingLimit: number): Gpu => Object.create(gpu, { bindingLimit: { value: bindingLimit } });
  await assert.rejects(planOf("models/blip2-opt-tiny", "texts", "f32", limited(8192)), (error: Error) => {
    assert.ok(error instanceof KernelError, String(error));
    return /patch_embedding\.weight: expected four columns of 588 in 8192 bytes, got 9408/.test(error.message);
  });
  // 66 positions of 40 take 10,560 bytes, and are not split.
  await assert.rejects(planOf("models/blip2-opt-tiny", "texts", "f32", limited(10_240)), (error: Error) => {
    assert.ok(error instanceof KernelError, String(error));
    return /embed_positions\.weight: expected at most 10240 bytes, .* got 10560/.test(error.message);
  });
  const { maxBufferSize, maxStorageBufferBindingSize } = gpu.device.limits;
  assert.ok(gpu.bindingLimit <= maxBufferSize && gpu.bindingLimit <= maxStorageBufferBindingSize);
});

test("what is available: the variable, what a software adapter's machine has left, or nothing known", () => {
  const given = (softwareAdapter: boolean) => ({ report: { ...gpu.report, softwareAdapter }, allocatedBytes: 5 });
  for (const [setting, bytes] of [
    ["24GB", 24e9],
    ["1.5 GiB", 1.5 * 2 ** 30],
    ["300m", 300e6],
    ["8KiB", 8192],
    ["123", 123],
  ] as const) {
    assert.equal(availableMemory(given(false), { BLIPFLEET_MEMORY: setting })?.bytes, bytes - 5, setting);
    assert.equal(availableMemory(given(true), { BLIPFLEET_MEMORY: setting })?.bytes, bytes - 5, setting);
  }
  assert.equal(availableMemory(given(false), {}), null);
  const machine = availableMemory(given(true), {});
  assert.ok(machine && machine.bytes > 0 && machine.bytes < totalmem(), JSON.stringify(machine));
  for (const setting of ["much", "-1", "3TB", "1e9"]) {
    assert.throws(() => availableMemory(given(true), { BLIPFLEET_MEMORY: setting }), MemorySettingError, setting);
  }
});
