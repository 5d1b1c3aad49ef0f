// Which kind of checkpoint a config.json is of, and what a checkpoint of no use is refused with.

import assert from "node:assert/strict";
import { test } from "node:test";
import { families, familyFor, familyOf, type Purpose, purposes } from "../../src/models/families.ts";

test("every family is found by its own class, and by its model type alone where that is the first of it", () => {
  const seen = new Set<string>();
  for (const [name, { modelType, architecture }] of Object.entries(families)) {
    assert.equal(familyOf("m", { model_type: modelType, architectures: ["Another", architecture] }), name);
    for (const architectures of [undefined, null, []]) {
      const first = familyOf("m", { model_type: modelType, architectures });
      assert.equal(first === name, !seen.has(modelType), name);
    }
    seen.add(modelType);
  }
});

test("a kind that is not built is refused with those that are", () => {
  assert.throws(() => familyOf("m", { model_type: "llava", architectures: ["Llava"] }), {
    name: "UnsupportedModelError",
    message: /^m: expected a supported model type, got "llava"; supported: blip-2 \(Blip2ForConditionalGeneration\), /,
  });
  assert.throws(() => familyOf("m", {}), { message: /^m: expected a supported model type, got undefined; / });
  assert.throws(() => familyOf("m", { model_type: "blip-2", architectures: ["Blip2Model"] }), {
    name: "UnsupportedModelError",
    message:
      "m: expected Blip2ForConditionalGeneration or Blip2ForImageTextRetrieval, got Blip2Model; other heads of blip-2 come later",
  });
});

test("a family that does not serve a purpose is refused with the commands that fit", () => {
  for (const [name, { modelType, architecture, does, commands, purposes: served }] of Object.entries(families)) {
    const json = { model_type: modelType, architectures: [architecture] };
    assert.ok(served.length > 0, name);
    for (const [purpose, wanted] of Object.entries(purposes) as [Purpose, string][]) {
      if ((served as readonly Purpose[]).includes(purpose)) {
        assert.equal(familyFor("m", json, purpose), name);
        continue;
      }
      assert.throws(() => familyFor("m", json, purpose), {
        name: "UnsupportedModelError",
        message: `m: expected a model that ${wanted}, got ${architecture}, which ${does}; use it with ${commands}`,
      });
    }
  }
});
