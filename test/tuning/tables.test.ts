// The tables in tuning/ against the operations that read them.

import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fallbackTable, readTable, shippedTables } from "../../src/gpu/tuning-table.ts";
import { quickly } from "../../src/tuning/measure.ts";
import { operations } from "../../src/tuning/operations.ts";

const files = readdirSync(shippedTables);

test("there are tables, and nothing else in their folder", () => {
  assert.ok(files.length >= 2);
  for (const file of files) assert.match(file, /^[a-z-]+\.json$/);
});

for (const file of files) {
  test(`${file}: all that it says is known`, () => {
    const { table } = readTable(join(shippedTables, file));
    for (const [name, classes] of Object.entries(table.operations)) {
      const operation = operations.find((each) => each.name === name);
      assert.ok(operation, name);
      for (const [shapeClass, { variants }] of Object.entries(classes)) {
        assert.ok(operation.classes.includes(shapeClass), `${name}, ${shapeClass}`);
        for (const { variant } of variants) operation.variant.parse(variant);
        const [first = 0, ...others] = variants.map(({ milliseconds }) => milliseconds ?? Number.POSITIVE_INFINITY);
        assert.deepEqual(
          others,
          [...others].sort((a, b) => a - b),
          `${name}, ${shapeClass}: the faster first`,
        );
        // One that is used anyway, or quickly compiled, is taken before one that gains little.
        assert.ok(
          first <= (1.01 + quickly.slower) * (others[0] ?? first),
          `${name}, ${shapeClass}: the first is as fast as any`,
        );
      }
    }
  });
}

for (const softwareAdapter of [true, false]) {
  test(`the table for ${softwareAdapter ? "CPU drivers" : "GPUs"} has every class, with more than one variant`, () => {
    const { table } = fallbackTable(softwareAdapter);
    for (const { name, classes } of operations) {
      assert.equal(new Set(classes).size, classes.length, name);
      for (const shapeClass of classes) {
        const { variants = [] } = table.operations[name]?.[shapeClass] ?? {};
        assert.ok(variants.length > 1, `${name}, ${shapeClass}: ${variants.length} variants`);
      }
    }
  });
}
