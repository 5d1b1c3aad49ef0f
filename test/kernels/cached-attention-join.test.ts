import assert from "node:assert/strict";
import { test } from "node:test";
import { cachedAttentionJoin } from "../../src/kernels/cached-attention-join.ts";
import { cachedForm } from "../../src/kernels/cached-form.ts";
import { none } from "../../src/kernels/decode-state.ts";
import { expectClose, openRig, randomValues } from "./harness.ts";

const rig = await openRig();

const [heads, span, spans] = [2, 10, 3] as const;

/** Rows from `firstRow` on that see so many positions each; parts of spans that no row sees are NaN. */
async function compare(headDim: number, visible: readonly number[], firstRow: number, contexts?: readonly number[]) {
  const rows = visible.length;
  const width = heads * headDim;
  const size = headDim + 2;
  const counted = rows - firstRow;
  const seen = visible.map((own, row) => (own === 0 ? 0 : Math.max(own, contexts?.[row] ?? 0)));
  const partial = randomValues(counted * heads * spans * size, 3, 4).map((value, i) => {
    const [at, s, row] = [i % size, Math.floor(i / size) % spans, Math.floor(i / (size * spans * heads))];
    if (s * span >= (seen[firstRow + row] ?? 0)) return Number.NaN;
    return at === headDim ? Math.abs(value) + 1 : at > headDim ? 60 * value : value;
  });
  const expected = Float64Array.from({ length: counted * width }, (_, i) => {
    const [d, head, row] = [i % headDim, Math.floor(i / headDim) % heads, Math.floor(i / width)];
    const parts = Array.from({ length: Math.ceil((seen[firstRow + row] ?? 0) / span) }, (_, s) => {
      const start = ((row * heads + head) * spans + s) * size;
      return { sum: partial[start + d], total: partial[start + headDim], highest: partial[start + headDim + 1] };
    });
    if (parts.length === 0) return 0;
    const highest = Math.max(...parts.map((part) => part.highest ?? Number.NaN));
    const over = (value: (part: (typeof parts)[number]) => number | undefined) =>
      parts.reduce((all, part) => all + Math.exp((part.highest ?? 0) - highest) * (value(part) ?? Number.NaN), 0);
    return over(({ sum }) => sum) / over(({ total }) => total);
  });
  const tensor = (name: string, shape: readonly number[]) =>
    rig.tensor(name, shape, new Float32Array(shape.reduce((a, b) => a * b)));
  const cursors = visible.flatMap((own, row) => [9, own === 0 ? none : own - 1, 4, rows - 1 - row]);
  const cache = { keys: await tensor("keys", [4, width]), values: await tensor("values", [4, width]) };
  const form = cachedForm(
    await tensor("queries", [rows, width]),
    cache,
    await rig.tensor("table", [rows, spans * span], new Uint32Array(rows * spans * span), "u32"),
    await rig.tensor("cursors", [rows, 4], cursors, "u32"),
    heads,
    1,
    contexts ? { contexts: await rig.tensor("contexts", [rows], contexts.toReversed(), "u32") } : {},
  );
  const attended = await rig.tensor("attended", [rows, width]);
  const parts = { partial: await rig.tensor("partial", [counted, heads, spans, size], partial), firstRow, span };
  await rig.run((k) => {
    cachedAttentionJoin(k, form, parts, attended);
    return [];
  });
  const all = await rig.read(attended);
  for (const value of all.subarray(0, firstRow * width))
    assert.ok(Number.isNaN(value), "rows before are left as they are");
  const tolerance = { absolute: 1e-6, relative: 1e-5, reason: "f32 exp of differences of scores up to 480" };
  expectClose(all.subarray(firstRow * width), expected, tolerance);
}

test("spans that a row sees, more columns than invocations", async () => {
  await compare(5, [1, 10, 11, 0, 20, 21, 30], 0);
  await compare(67, [30, 7], 0);
});

test("rows from the second on", () => compare(5, [30, 0, 12, 25], 1));

test("a context's rows see its spans", () => compare(5, [1, 12, 0, 25], 0, [21, 3, 30, 9]));

test("wrong parts are named", async () => {
  const queries = await rig.tensor("queries", [1, 4], [1, 2, 3, 4]);
  const integers = (shape: readonly number[]) => rig.tensor("integers", shape, new Uint32Array(4), "u32");
  const form = cachedForm(
    queries,
    { keys: queries, values: queries },
    await integers([1, 4]),
    await integers([1, 4]),
    2,
    1,
    {},
  );
  const partial = await rig.tensor("partial", [1, 2, 1, 3], new Float32Array(6));
  const launch = rig.run((k) => {
    cachedAttentionJoin(k, form, { partial, firstRow: 0, span }, queries);
    return [];
  });
  await assert.rejects(
    launch,
    /ShapeError: cachedAttentionJoin: expected partial to be \(rows, 2, spans, 4\), got \(1, 2, 1, 3\)/,
  );
});
