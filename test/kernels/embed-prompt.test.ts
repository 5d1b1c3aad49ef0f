import assert from "node:assert/strict";
import { test } from "node:test";
import { ShapeError } from "../../src/gpu/errors.ts";
import { embedPrompt } from "../../src/kernels/embed-prompt.ts";
import { openRig, randomValues, roundF16 } from "./harness.ts";

const rig = await openRig();
const untouched = -3.5;

for (const [items, queries, tokens, width, offset] of [
  [1, 1, 1, 1, 0],
  [1, 5, 9, 40, 2],
  [3, 5, 6, 27, 2],
  [2, 32, 40, 64, 2],
  [4, 3, 3, 65, 1],
  [2, 7, 8, 130, 3],
] as const) {
  for (const promptType of ["f32", "f16"] as const) {
    for (const positionType of width % 2 === 0 ? (["f32", "f16"] as const) : (["f32"] as const)) {
      test(`${items} x ${queries} of ${tokens} rows, width ${width}, ${promptType} + ${positionType}`, async () => {
        const stride = Math.ceil((queries * width) / 2) * 2 + 2;
        const table = randomValues((queries + offset + 1) * width, 4);
        const values = randomValues(items * queries * width, 9);
        // Padding behind each item holds NaN.
        const padded = new Float32Array(items * stride).fill(Number.NaN);
        for (let item = 0; item < items; item++) {
          padded.set(values.subarray(item * queries * width, (item + 1) * queries * width), item * stride);
        }
        const prompt = await rig.tensor("prompt", [items, stride], padded, promptType);
        const positions = await rig.tensor("positions", [queries + offset + 1, width], table, positionType);
        const x = await rig.tensor(
          "x",
          [items * tokens, width],
          new Float32Array(items * tokens * width).fill(untouched),
        );
        await rig.run((k) => {
          embedPrompt(k, x, prompt, positions, queries, offset);
          return [];
        });
        const as = (type: "f32" | "f16", value: number | undefined) =>
          type === "f16" ? roundF16(value ?? Number.NaN) : (value ?? Number.NaN);
        const expected = Array.from({ length: items * tokens * width }, (_, i) => {
          const d = i % width;
          const t = Math.floor(i / width) % tokens;
          const item = Math.floor(i / (width * tokens));
          if (t >= queries) return untouched;
          const value = as(promptType, values[(item * queries + t) * width + d]);
          return Math.fround(value + as(positionType, table[(t + offset) * width + d]));
        });
        assert.deepEqual([...(await rig.read(x))], expected);
      });
    }
  }
}

for (const type of ["f32", "f16"] as const) {
  test(`a model without position embeddings, ${type}`, async () => {
    const [items, queries, tokens, width] = [2, 3, 5, 6] as const;
    const values = randomValues(items * queries * width, 11);
    const prompt = await rig.tensor("prompt", [items, queries * width], values, type);
    const x = await rig.tensor("x", [items * tokens, width], new Float32Array(items * tokens * width).fill(untouched));
    await rig.run((k) => {
      embedPrompt(k, x, prompt, null, queries, 0);
      return [];
    });
    const expected = Array.from({ length: items * tokens * width }, (_, i) => {
      const t = Math.floor(i / width) % tokens;
      const value = values[(Math.floor(i / (width * tokens)) * queries + t) * width + (i % width)] ?? Number.NaN;
      if (t >= queries) return untouched;
      return type === "f16" ? roundF16(value) : value;
    });
    assert.deepEqual([...(await rig.read(x))], expected);
  });
}

test("fewer rows than image slots are refused", async () => {
  const x = await rig.tensor("x", [4, 6]);
  const prompt = await rig.tensor("prompt", [2, 18]);
  const positions = await rig.tensor("positions", [8, 6]);
  const recording = rig.gpu.record("refused", (k) => embedPrompt(k, x, prompt, positions, 3, 2));
  await assert.rejects(recording, (error) => error instanceof ShapeError && /at least 3 rows/.test(error.message));
});
