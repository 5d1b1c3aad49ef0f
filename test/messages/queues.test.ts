import assert from "node:assert/strict";
import { test } from "node:test";
import { isSameModel, settingsName, stageQueue } from "../../src/messages/queues.ts";

const model = { digest: "0123456789ab".padEnd(64, "c"), dtype: "f32" } as const;

test("a model that is run otherwise than its checkpoint says has queues of its own", () => {
  const queues = [
    {},
    { settings: { imageSize: 364 } },
    { settings: { imageSize: 224 } },
    { settings: { behaviour: "lavis" } },
    { settings: { imageSize: 480, behaviour: "lavis" } },
  ] as const;
  assert.deepEqual(
    queues.map((of) => stageQueue("encode", { ...model, ...of })),
    [
      "encode.0123456789ab.f32",
      "encode.0123456789ab.f32.364px",
      "encode.0123456789ab.f32.224px",
      "encode.0123456789ab.f32.lavis",
      "encode.0123456789ab.f32.480px-lavis",
    ],
  );
  assert.equal(
    stageQueue("query", { ...model, settings: { imageSize: 364 } }, "now"),
    "query.0123456789ab.f32.364px.now",
  );
  assert.equal(settingsName({ behaviour: "huggingface" }), "", "the default has no word");
});

test("work is for a model of the same digest, type and settings", () => {
  const settings = { imageSize: 364 };
  assert.ok(isSameModel({ ...model, settings }, { ...model, settings: { ...settings } }));
  assert.ok(isSameModel({ ...model, settings: {} }, model));
  for (const other of [
    { digest: "f".repeat(64) },
    { dtype: "f16" },
    { settings: { imageSize: 365 } },
    { settings: {} },
  ] as const) {
    assert.ok(!isSameModel({ ...model, settings }, { ...model, settings, ...other }), JSON.stringify(other));
  }
});
