import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { PromptStoreError } from "../../src/messages/errors.ts";
import { canonicalText, type PromptKeyInput, promptKey, promptSubject } from "../../src/messages/prompt-key.ts";

const input: PromptKeyInput = {
  imageSha256: "a".repeat(64),
  modelDigest: "b".repeat(64),
  kind: "prompt",
  frame: 0,
  image: {
    height: 224,
    width: 224,
    resample: "bicubic",
    rescale: 0.00392156862745098,
    mean: [0.48145466, 0.4578275, 0.40821073],
    std: [0.26862954, 0.26130258, 0.27577711],
  },
  preprocessing: 1,
  dtype: "f32",
};

test("the canonical text is the documented one", () => {
  assert.equal(
    canonicalText(input),
    [
      "blipfleet prompt 1",
      `image=64:${"a".repeat(64)}`,
      `model=64:${"b".repeat(64)}`,
      "kind=6:prompt",
      "frame=1:0",
      "size=7:224,224",
      "resample=7:bicubic",
      "rescale=19:0.00392156862745098",
      "mean=31:0.48145466,0.4578275,0.40821073",
      "std=32:0.26862954,0.26130258,0.27577711",
      "preprocessing=1:1",
      "dtype=3:f32",
      "",
    ].join("\n"),
  );
});

test("the key is the SHA-256 of the canonical text, under the model's digest", () => {
  const key = promptKey(input);
  assert.deepEqual(key, {
    modelDigest: input.modelDigest,
    key: createHash("sha256").update(canonicalText(input)).digest("hex"),
  });
  assert.equal(promptSubject(key), `blipfleet.prompt.${key.modelDigest}.${key.key}`);
});

test("every field changes the key", () => {
  const { image } = input;
  const variants: readonly PromptKeyInput[] = [
    input,
    { ...input, imageSha256: "c".repeat(64) },
    { ...input, modelDigest: "c".repeat(64) },
    { ...input, kind: "features" },
    { ...input, frame: 1 },
    { ...input, image: { ...image, height: 384 } },
    { ...input, image: { ...image, shortestEdge: 224 } },
    { ...input, image: { ...image, shortestEdge: 256 } },
    { ...input, image: { ...image, width: 384 } },
    { ...input, image: { ...image, rescale: 1 / 256 } },
    { ...input, image: { ...image, mean: [0.5, 0.4578275, 0.40821073] } },
    { ...input, image: { ...image, mean: [0.48145466, 0.4578275, 0.5] } },
    { ...input, image: { ...image, std: [0.5, 0.26130258, 0.27577711] } },
    { ...input, vision: { positions: "bicubic" } },
    { ...input, vision: { normEps: [1e-6, 1e-5] } },
    { ...input, vision: { normEps: [1e-5, 1e-6] } },
    { ...input, preprocessing: 2 },
    { ...input, dtype: "f16" },
    { ...input, dtype: "int8" },
    { ...input, dtype: "int4" },
    { ...input, instruction: "" },
    { ...input, instruction: "what is it?" },
    { ...input, instruction: "été" },
  ];
  const keys = variants.map((variant) => promptKey(variant).key);
  assert.equal(new Set(keys).size, variants.length);
});

test("an instruction cannot imitate other fields", () => {
  const forged = promptKey({ ...input, dtype: "f32", instruction: "x\ndtype=3:f16" });
  const texts = [forged.key, promptKey({ ...input, instruction: "x" }).key, promptKey({ ...input, dtype: "f16" }).key];
  assert.equal(new Set(texts).size, 3);
  assert.match(canonicalText({ ...input, instruction: "été" }), /instruction=5:été\n$/, "lengths are in bytes");
});

test("digests and frames are checked", () => {
  assert.throws(() => promptKey({ ...input, imageSha256: "A".repeat(64) }), PromptStoreError);
  assert.throws(() => promptKey({ ...input, modelDigest: "b".repeat(63) }), PromptStoreError);
  assert.throws(() => promptKey({ ...input, frame: -1 }), PromptStoreError);
  assert.throws(() => promptKey({ ...input, frame: 0.5 }), PromptStoreError);
  assert.throws(() => promptSubject({ modelDigest: "b".repeat(64), key: "*" }), PromptStoreError);
});
