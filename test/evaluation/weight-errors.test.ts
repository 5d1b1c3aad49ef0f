import assert from "node:assert/strict";
import { join } from "node:path";
import { after, test } from "node:test";
import { weightErrorLines, weightErrors } from "../../evaluation/weight-errors.ts";
import { openGpu } from "../../src/gpu/device.ts";
import { openCheckpoint } from "../../src/weights/checkpoint.ts";
import { linear, norm, vocabularyLinear } from "../../src/weights/names/tensor-names.ts";
import { readValues } from "../../src/weights/safetensors.ts";
import { fixtures } from "../fixture-files.ts";
import { dequantizeReference, quantizeReference } from "../reference/quantize-weight.ts";

const gpu = await openGpu({ nap: true });
after(() => gpu.close());

test("errors of the matrices that are quantized, by layer, are those of the reference", async () => {
  const checkpoint = await openCheckpoint(join(fixtures, "models", "blip2-opt-tiny"));
  const decoder = "language_model.model.decoder";
  const tree = {
    head: vocabularyLinear(`${decoder}.embed_tokens`, 40, 517),
    layers: [0, 1].map((i) => ({
      fc1: linear(`${decoder}.layers.${i}.fc1`, 40, 70),
      fc2: linear(`${decoder}.layers.${i}.fc2`, 70, 40),
      norm: norm(`${decoder}.layers.${i}.final_layer_norm`, 40, 1e-5),
    })),
  };
  for (const type of ["int8", "int4"] as const) {
    const layers = await weightErrors(gpu, checkpoint, tree, type);
    assert.deepEqual(
      layers.map(({ layer, matrices }) => [layer, matrices.length]),
      [
        [`${decoder}.layers.0`, 2],
        [`${decoder}.layers.1`, 2],
      ],
    );
    for (const { name, error } of layers.flatMap(({ matrices }) => matrices)) {
      const stored = checkpoint.tensors.get(name) ?? assert.fail(name);
      const [columns = 0, inputs = 0] = stored.shape;
      const values = await readValues(stored);
      const ours = values.map((_, i) => values[(i % columns) * inputs + Math.floor(i / columns)] ?? Number.NaN);
      const made = dequantizeReference(quantizeReference(ours, inputs, columns, type === "int8" ? 8 : 4));
      const lost = ours.reduce((sum, value, i) => sum + (value - (made[i] ?? Number.NaN)) ** 2, 0);
      const whole = ours.reduce((sum, value) => sum + value ** 2, 0);
      assert.ok(Math.abs(error - Math.sqrt(lost / whole)) < 1e-9, `${name}: ${error}`);
      assert.ok(error > (type === "int8" ? 0.003 : 0.05), `${name}: ${error}`);
    }
    const lines = weightErrorLines(layers, type);
    assert.equal(lines.length, 4);
    assert.match(lines[3] ?? "", /^all +4 +\d+\.\d\d % +\d+\.\d\d % +language_model\./);
  }
});
