import assert from "node:assert/strict";
import { test } from "node:test";
import { none } from "../../src/kernels/decode-state.ts";
import { embedTokens } from "../../src/kernels/embed-tokens.ts";
import type { Segment } from "../../src/kernels/weights.ts";
import { openRig, randomValues, roundF16 } from "./harness.ts";

const rig = await openRig();
const untouched = 77.25;

interface Case {
  readonly width: number;
  readonly vocabulary: number;
  /** Columns of each segment. */
  readonly split: readonly number[];
  readonly weightType: "f32" | "f16";
  /** null: no position table. */
  readonly positionType: "f32" | "f16" | null;
}

/** The head's column of an id: value (id, d). */
const weightAt = (given: Case, id: number, d: number) => {
  const value = randomValues(given.vocabulary * given.width, 3)[id * given.width + d] ?? Number.NaN;
  return given.weightType === "f16" ? roundF16(value) : value;
};

async function run(given: Case, rows: readonly (readonly [number, number])[], offset: number) {
  const { width, vocabulary, split, weightType, positionType } = given;
  const tableRows = 9;
  const table = randomValues(tableRows * width, 5);
  const all = randomValues(vocabulary * width, 3);
  const segments: Segment[] = [];
  let from = 0;
  for (const columns of split) {
    const stride = Math.ceil(columns / 4) * 4;
    // Padding columns hold NaN: whoever reads one shows it.
    const values = new Float32Array(width * stride).fill(Number.NaN);
    for (let d = 0; d < width; d++) {
      for (let c = 0; c < columns; c++) values[d * stride + c] = all[(from + c) * width + d] ?? Number.NaN;
    }
    segments.push({ weight: await rig.tensor("weight", [width, stride], values, weightType), from, width: columns });
    from += columns;
  }
  assert.equal(from, vocabulary);
  const positions = positionType && (await rig.tensor("positions", [tableRows, width], table, positionType));
  const cursors = await rig.tensor(
    "cursors",
    [rows.length, 4],
    rows.flatMap(([token, at]) => [token, at, 5, 6]),
    "u32",
  );
  const x = await rig.tensor("x", [rows.length, width], new Float32Array(rows.length * width).fill(untouched));
  const head = { segments, bias: null, inputs: width, columns: vocabulary };
  await rig.run((k) => {
    embedTokens(k, x, head, positions, cursors, offset);
    return [];
  });
  const expected = rows.flatMap(([token, at]) =>
    Array.from({ length: width }, (_, d) => {
      if (at === none) return 0;
      if (token >= vocabulary) return untouched;
      const position = positionType === null ? 0 : (table[(at + offset) * width + d] ?? Number.NaN);
      return Math.fround(weightAt(given, token, d) + (positionType === "f16" ? roundF16(position) : position));
    }),
  );
  assert.deepEqual([...(await rig.read(x))], expected);
}

for (const [width, vocabulary, split] of [
  [1, 3, [3]],
  [2, 7, [7]],
  [63, 97, [97]],
  [64, 97, [40, 40, 17]],
  [65, 131, [128, 3]],
  [130, 41, [13, 13, 13, 2]],
  [88, 5, [1, 1, 1, 1, 1]],
] as const) {
  for (const weightType of ["f32", "f16"] as const) {
    test(`width ${width}, segments ${split.join("+")}, ${weightType}: first and last ids, padding, image slots`, async () => {
      const edges = split.flatMap((_, i) => {
        const from = split.slice(0, i).reduce((sum, columns) => sum + columns, 0);
        return [from, from + (split[i] ?? 0) - 1];
      });
      const rows = edges.map((id, i): [number, number] => [id, i % 7]);
      rows.splice(1, 0, [none, 3], [none, none], [1, none]);
      rows.push([none, none], [vocabulary, 2], [0, 6], [vocabulary - 1, 0]);
      const positionType = width % 2 === 0 ? weightType : "f32";
      await run({ width, vocabulary, split, weightType, positionType }, rows, 2);
    });
  }
}

test("the offset into the position table is the caller's", async () => {
  const given: Case = { width: 10, vocabulary: 6, split: [6], weightType: "f32", positionType: "f16" };
  for (const offset of [0, 1, 3])
    await run(
      given,
      [
        [4, 0],
        [2, 5],
      ],
      offset,
    );
});

test("a model without position embeddings", async () => {
  for (const weightType of ["f32", "f16"] as const) {
    const given: Case = { width: 65, vocabulary: 9, split: [4, 5], weightType, positionType: null };
    await run(
      given,
      [
        [0, 0],
        [8, 500],
        [none, 1],
        [3, none],
        [4, 2],
      ],
      0,
    );
  }
});
