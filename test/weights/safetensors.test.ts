import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import path from "node:path";
import { test } from "node:test";
import { readPieces, readSafetensorsHeader, readScalar } from "../../src/weights/safetensors.ts";
import { fixtures } from "../fixture-files.ts";
import { safetensors, temporaryFolder, withHeader } from "./checkpoint-files.ts";

const folder = await temporaryFolder();
let files = 0;

async function problemsOf(content: Buffer): Promise<readonly string[]> {
  const file = path.join(folder, `${files++}.safetensors`);
  await writeFile(file, content);
  return (await readSafetensorsHeader(file, "file")).problems;
}

function entry(shape: number[], from: number, to: number, dtype = "F32"): object {
  return { dtype, shape, data_offsets: [from, to] };
}

test("a well-formed file gives its tensors, their places and no problem", async () => {
  const file = path.join(folder, "good.safetensors");
  const content = safetensors({ a: { shape: [2, 3] }, empty: { shape: [0, 3] }, b: { shape: [], dtype: "BF16" } });
  await writeFile(file, content);
  const { tensors, problems } = await readSafetensorsHeader(file, "file");
  assert.deepEqual(problems, []);
  const start = content.length - 26;
  assert.deepEqual(tensors, [
    { name: "a", dtype: "F32", shape: [2, 3], file, start, bytes: 24 },
    { name: "empty", dtype: "F32", shape: [0, 3], file, start: start + 24, bytes: 0 },
    { name: "b", dtype: "BF16", shape: [], file, start: start + 24, bytes: 2 },
  ]);
});

test("hostile and truncated files are refused, each with what is wrong", async () => {
  const good = safetensors({ a: { shape: [4] }, b: { shape: [4] } });
  const two = (a: object, b: object, bytes = 32) => withHeader(JSON.stringify({ a, b }), bytes);
  const cases: [string, Buffer, RegExp[]][] = [
    ["no bytes at all", Buffer.alloc(0), [/expected a header length of 8 bytes, got a file of 0 bytes/]],
    ["a length and nothing else", good.subarray(0, 8), [/expected a header inside the file's 8 bytes/]],
    ["a huge length", withHeader("{}", 0, 2n ** 63n), [/at most 100000000 bytes, got 9223372036854775808/]],
    [
      "a length past the end",
      withHeader("{}", 10, 13n),
      [/expected a header inside the file's 20 bytes, got a header of 13/],
    ],
    ["not JSON", withHeader("{nope", 0), [/expected a header in JSON/]],
    [
      "not UTF-8",
      Buffer.concat([withHeader("", 0, 4n), Buffer.from([0x22, 0xff, 0xfe, 0x22])]),
      [/expected a header in JSON/],
    ],
    ["a list", withHeader("[1]", 0), [/expected a header that is a JSON object/]],
    ["an entry that is a number", withHeader('{"a":7}', 0), [/a: expected dtype, shape and data_offsets, got 7/]],
    ["an unknown dtype", two(entry([4], 0, 16, "F12"), entry([4], 16, 32)), [/a: expected a known dtype, got "F12"/]],
    ["a dtype out of the prototype", two(entry([4], 0, 16, "toString"), entry([4], 16, 32)), [/known dtype/]],
    [
      "a negative size",
      two(entry([-4], 0, 16), entry([4], 16, 32)),
      [/a: expected a shape of whole numbers, got \[-4\]/],
    ],
    [
      "a size that is no number",
      withHeader('{"a":{"dtype":"F32","shape":["4"],"data_offsets":[0,16]}}', 16),
      [/shape of whole/],
    ],
    ["one offset", withHeader('{"a":{"dtype":"F32","shape":[4],"data_offsets":[0]}}', 16), [/two data_offsets/]],
    ["offsets in disorder", two(entry([4], 16, 0), entry([4], 16, 32)), [/a: expected data_offsets in order/]],
    [
      "an offset past the end",
      two(entry([4], 0, 16), entry([5], 16, 36)),
      [/b: expected data inside the file's 32 bytes/],
    ],
    [
      "a size that overflows",
      two(entry([2 ** 40, 2 ** 40], 0, 16), entry([4], 16, 32)),
      [/a: expected 4\.8\d*e\+24 bytes/],
    ],
    [
      "size unlike shape",
      two(entry([3], 0, 16), entry([4], 16, 32)),
      [/a: expected 12 bytes for \(3\) of F32, got 16/],
    ],
    [
      "an overlap",
      two(entry([4], 0, 16), entry([4], 12, 28), 28),
      [/b: expected data from byte 16 on, got an overlap from 12/],
    ],
    [
      "the same bytes twice",
      two(entry([4], 0, 16), entry([4], 0, 16), 16),
      [/b: expected data from byte 16 on, got an overlap/],
    ],
    [
      "a hole",
      two(entry([4], 0, 16), entry([4], 20, 36), 36),
      [/b: expected data from byte 16 on, got a hole up to 20/],
    ],
    ["bytes behind the end", two(entry([4], 0, 16), entry([4], 16, 32), 40), [/expected 32 bytes of data, got 40/]],
    ["a truncated file", good.subarray(0, good.length - 1), [/b: expected data inside the file's 31 bytes of data/]],
    [
      "two mistakes at once",
      two(entry([4], 0, 16, "F12"), entry([5], 16, 36)),
      [/a: expected a known dtype/, /b: expected data inside/],
    ],
  ];
  for (const [name, content, expected] of cases) {
    const problems = await problemsOf(content);
    assert.equal(problems.length, expected.length, `${name}: ${problems.join("; ") || "no problem found"}`);
    for (const [i, pattern] of expected.entries()) assert.match(problems[i] ?? "", pattern, name);
  }
});

test("every truncation of a real file is noticed", async () => {
  const content = safetensors({ a: { shape: [3] }, b: { shape: [2], dtype: "F16" } });
  for (let length = 0; length < content.length; length++) {
    assert.notDeepEqual(
      await problemsOf(content.subarray(0, length)),
      [],
      `cut to ${length} of ${content.length} bytes`,
    );
  }
});

test("pieces are whole rows, at most as large as asked, and together the tensor", async () => {
  const file = path.join(fixtures, "models", "blip2-opt-tiny", "model.safetensors");
  const { tensors, problems } = await readSafetensorsHeader(file, "file");
  assert.deepEqual(problems, []);
  const tensor = tensors.find(({ name }) => name === "vision_model.encoder.layers.0.self_attn.qkv.weight");
  assert.ok(tensor);
  const rowBytes = 176 * 4;
  const pieces: Buffer[] = [];
  for await (const { at, bytes } of readPieces(tensor, rowBytes, 10_000)) {
    assert.equal(
      at,
      pieces.reduce((sum, piece) => sum + piece.length, 0),
    );
    assert.ok(bytes.length <= 10_000 && bytes.length % rowBytes === 0, `${bytes.length} bytes`);
    pieces.push(Buffer.from(bytes));
  }
  const whole: Buffer[] = [];
  for await (const { bytes } of readPieces(tensor, rowBytes, 2 ** 30)) whole.push(Buffer.from(bytes));
  assert.equal(whole.length, 1);
  assert.equal(pieces.length, Math.ceil((528 * rowBytes) / (14 * rowBytes)));
  assert.ok(Buffer.concat(pieces).equals(whole[0] ?? Buffer.alloc(0)));
  assert.ok((whole[0]?.length ?? 0) === tensor.bytes);

  const parts: Buffer[] = [];
  for await (const { bytes } of readPieces(tensor, rowBytes, 100)) {
    assert.ok(bytes.length <= 100);
    parts.push(Buffer.from(bytes));
  }
  assert.ok(Buffer.concat(parts).equals(whole[0] ?? Buffer.alloc(0)), "rows longer than a piece come in several");
});

test("one number of any float type; anything else is refused by name", async () => {
  const file = path.join(folder, "scalar.bin");
  const bytes = (hex: string) => Buffer.from(hex, "hex");
  for (const [dtype, hex, value] of [
    ["F32", "00006040", 3.5],
    ["BF16", "6c40", 3.6875],
    ["F16", "0043", 3.5],
    ["F16", "ff7b", 65504],
    ["F16", "01c0", -2.001953125],
    ["F16", "0180", -(2 ** -24)],
    ["F16", "00fc", Number.NEGATIVE_INFINITY],
  ] as const) {
    const content = Buffer.concat([bytes("7777"), bytes(hex), bytes("77")]);
    await writeFile(file, content);
    const stored = { name: "scale", dtype, shape: [], file, start: 2, bytes: hex.length / 2 };
    assert.equal(await readScalar(stored), value, `${dtype} ${hex}`);
  }
  for (const [dtype, size] of [
    ["I32", 4],
    ["F32", 8],
    ["F16", 4],
  ] as const) {
    const stored = { name: "scale", dtype, shape: [], file, start: 0, bytes: size };
    await writeFile(file, Buffer.alloc(16));
    await assert.rejects(readScalar(stored), {
      name: "WeightsError",
      message:
        dtype === "I32"
          ? /scale: .*expected F32, F16 or BF16, got I32/s
          : /scale: .*one F32, F16 or BF16, got \d bytes of/s,
    });
  }
});
