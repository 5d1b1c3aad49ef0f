// Which kind of checkpoint a config.json is of, and what a checkpoint of no use is refused with.

import assert from "node:assert/strict";
import { test } from "node:test";
import { families, familyFor, familyOf, type Purpose, purposes } from "../../src/models/families.ts";

test("every family is found by its own class, and by its model type alone where that is the first of it", () => {
  const seen = new Set<string>();
  for (const [name, given] of Object.entries(families)) {
    const { modelType, architecture } = given;
    const text = "textModel" in given ? { text_config: { model_type: given.textModel } } : {};
    assert.equal(familyOf("m", { model_type: modelType, architectures: ["Another", architecture], ...text }), name);
    for (const architectures of [undefined, null, []]) {
      const first = familyOf("m", { model_type: modelType, architectures });
      assert.equal(first === name, !seen.has(modelType), name);
    }
    seen.add(modelType);
  }
});

test("one class with several language models: text_config tells, and OPT where it does not", () => {
  const json = { model_type: "blip-2", architectures: ["Blip2ForConditionalGeneration"] };
  for (const text_config of [undefined, null, {}, { model_type: "opt" }]) {
    assert.equal(familyOf("m", { ...json, text_config }), "blip-2-opt");
  }
  for (const architectures of [json.architectures, undefined]) {
    assert.equal(familyOf("m", { ...json, architectures, text_config: { model_type: "t5" } }), "blip-2-t5");
  }
  assert.throws(() => familyOf("m", { ...json, text_config: { model_type: "llama" } }), {
    name: "UnsupportedModelError",
    message:
      'm: expected Blip2ForConditionalGeneration with the language model opt or t5, got "llama"; others come later',
  });
  // Retrieval checkpoints name a language model that is not there.
  const retrieval = { ...json, architectures: ["Blip2ForImageTextRetrieval"], text_config: { model_type: "t5" } };
  assert.equal(familyOf("m", retrieval), "blip-2-retrieval");
});

test("InstructBLIP: Vicuna is a llama; another language model is refused", () => {
  const json = { model_type: "instructblip", architectures: ["InstructBlipForConditionalGeneration"] };
  assert.equal(familyOf("m", { ...json, text_config: { model_type: "llama" } }), "instructblip-vicuna");
  assert.equal(familyOf("m", { ...json, text_config: { model_type: "t5" } }), "instructblip-t5");
  assert.throws(() => familyOf("m", { ...json, text_config: { model_type: "opt" } }), {
    message:
      'm: expected InstructBlipForConditionalGeneration with the language model llama or t5, got "opt"; others come later',
  });
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
  for (const [name, given] of Object.entries(families)) {
    const { modelType, architecture, does, commands, purposes: served } = given;
    const text = "textModel" in given ? { text_config: { model_type: given.textModel } } : {};
    const json = { model_type: modelType, architectures: [architecture], ...text };
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

/** What each command opens a checkpoint for; a folder of jobs takes what caption and ask take. */
const wantedBy = {
  caption: "captions",
  ask: "answers",
  match: "matches",
  classify: "labels",
  index: "vectors",
  search: "vectors",
  capfilt: "captions",
} as const satisfies Readonly<Record<string, Purpose>>;

test("every family with every command: taken, or refused in a sentence that names the family and exactly the commands that fit", () => {
  for (const [name, { modelType, architecture, commands, ...rest }] of Object.entries(families)) {
    const text = "textModel" in rest ? { text_config: { model_type: rest.textModel } } : {};
    const json = { model_type: modelType, architectures: [architecture], ...text };
    for (const [command, purpose] of Object.entries(wantedBy)) {
      const plain = commands.replace(/ --task \w+( or \w+)*/, "").replace("capfilt --filter-model", "");
      const fits = new RegExp(`\\b${command}\\b`).test(plain);
      if (fits) {
        assert.equal(familyFor("m", json, purpose), name, `${command} takes ${name}`);
      } else {
        const message = new RegExp(
          `^m: expected a model that .*, got ${architecture}, which .*; use it with ${commands}$`,
        );
        assert.throws(
          () => familyFor("m", json, purpose),
          { name: "UnsupportedModelError", message },
          `${command}, ${name}`,
        );
      }
    }
  }
});
