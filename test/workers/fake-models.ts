// A made-up model for the GPU thread, with a real kernel: encode doubles pixels, generate counts. Some inputs do harm.

import { join } from "node:path";
import type { Gpu } from "../../src/gpu/device.ts";
import { packageRoot } from "../../src/gpu/package-root.ts";
import type { RowProgram, RowResult } from "../../src/gpu/row-program.ts";
import type { GenerateRow } from "../../src/models/generate-row.ts";
import type { Activation, Pixels } from "../../src/stages.ts";
import type { LoadOptions, OpenedModel } from "../../src/workers/gpu-models.ts";
import type { ModelRequest } from "../../src/workers/gpu-protocol.ts";

/** First text ids that do harm instead of being counted from. */
export const harm = { loseDevice: 9001, failRow: 9002, crashThread: 9003, loseDeviceLater: 9004 } as const;

class FakeModelError extends Error {
  override name = "FakeModelError";
}

export async function selfTest(): Promise<void> {
  if (process.env.FAKE_SELF_TEST === "fail") throw new FakeModelError("self-test: expected 4, got 5");
}

const size = 12;
const most = 4;

/** (rows, 12) pixels, doubled. */
function encodeProgram(gpu: Gpu): RowProgram<Pixels, Activation> {
  return {
    name: "encode",
    maxRows: () => most,
    key: (row) => `${row.height}`,
    start(rows) {
      const x = gpu.alloc("x", [most * size], "f32");
      const bias = gpu.alloc("bias", [1], "f32");
      return {
        async step() {
          for (const [i, row] of rows.entries()) {
            await gpu.upload(x, new Uint8Array(row.data.buffer, row.data.byteOffset, size * 4), i * size * 4);
          }
          const list = await gpu.record("encode", (k) => {
            const y = k.scratch("y", [most * size]);
            k.launch("scale-add", {
              inputs: { x, bias },
              outputs: { y },
              params: { count: most * size, scale: 2 },
              workgroups: [6],
            });
            return y;
          });
          const bytes = new Uint8Array((await gpu.submit([list], { reads: [list.result] }))[0] as ArrayBuffer);
          list.destroy();
          return rows.map((_, row) => ({
            row,
            value: {
              kind: "features",
              type: "f32",
              shape: [1, size],
              // Two rows of one batch share a buffer, as a real program's may.
              bytes: bytes.subarray(row * size * 4, (row + 1) * size * 4),
            },
          }));
        },
        release() {
          gpu.free(x);
          gpu.free(bias);
        },
      };
    },
  };
}

/** maxNewTokens ids that count on from the first text id, one a step; each step is a submit of many dispatches. */
function generateProgram(gpu: Gpu): RowProgram<GenerateRow, number[]> {
  return {
    name: "generate",
    maxRows: () => most,
    key: (row) => {
      if (row.textIds[0] === harm.failRow) throw new FakeModelError("row: expected a good one");
      return "";
    },
    start(rows) {
      const state = gpu.alloc("state", [1], "u32");
      const seen = gpu.alloc("seen", [4096], "u32");
      const made: number[][] = rows.map(() => []);
      return {
        async step(dropped) {
          if (rows.some((row) => row.textIds[0] === harm.loseDevice)) gpu.device.destroy();
          if (rows.some((row) => row.textIds[0] === harm.crashThread))
            setTimeout(() => process.nextTick(Reflect.apply));
          const list = await gpu.record("step", (k) => {
            k.launch("advance", { inputs: {}, outputs: { state, seen }, workgroups: [1] });
          });
          await gpu.submit(new Array(200).fill(list));
          list.destroy();
          const done: RowResult<number[]>[] = [];
          rows.forEach((row, i) => {
            const ids = made[i] ?? [];
            if (dropped.has(i) || ids.length === row.generation.maxNewTokens) return;
            ids.push((row.textIds[0] ?? 0) + ids.length + 1);
            if (ids.length === row.generation.maxNewTokens) done.push({ row: i, value: ids });
          });
          return done;
        },
        release() {
          gpu.free(state);
          gpu.free(seen);
          // By then the row's result has gone out, and nothing is under way.
          if (rows.some((row) => row.textIds[0] === harm.loseDeviceLater)) setTimeout(() => gpu.device.destroy(), 100);
        },
      };
    },
  };
}

export async function loadModel(gpu: Gpu, request: ModelRequest, { onProgress }: LoadOptions): Promise<OpenedModel> {
  onProgress({ phase: "upload", what: request.ref, done: 1, total: 2 });
  if (request.ref === "missing") throw new FakeModelError("missing: expected a checkpoint, got none");
  const all = { encode: encodeProgram(gpu), generate: generateProgram(gpu) };
  const { generate } = all;
  return {
    card: {
      ref: request.ref,
      family: "fake",
      digest: "0".repeat(64),
      dtype: request.dtype,
      image: { height: 2, width: 2, resample: "bicubic", rescale: 1 / 255, mean: [0, 0, 0], std: [1, 1, 1] },
      features: [1, size],
      handsOver: "prompt",
      prompt: [1, size],
      maxPositions: 4096,
    },
    folder: join(packageRoot, "test/fixtures/models/blip2-opt-tiny"),
    memory: { encode: 4, generate: 8 },
    rowBytes: { caches: 2, scratch: 1 },
    release() {},
    programs: request.stages?.includes("encode") === false ? { generate } : all,
  };
}
