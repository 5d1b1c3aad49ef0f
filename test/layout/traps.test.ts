// test/traps.md names a test for every known trap; each must be there.

import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { packageRoot } from "../../src/gpu/package-root.ts";

/** [number, trap, file, test] of each row. */
function rows(): readonly (readonly string[])[] {
  const text = readFileSync(join(packageRoot, "test", "traps.md"), "utf8");
  const lines = text.split("\n").filter((line) => /^\| +(\d+|\+) +\|/.test(line));
  return lines.map((line) => {
    const [, number = "", trap = "", file = "", name = ""] =
      /^\| +(\S+) +\| +(.*?) +\| +`([^`]+)` +\| +`(.+)` +\|$/.exec(line) ?? [];
    assert.ok(name !== "", `traps.md: expected number, trap, file and test, got ${line}`);
    return [number, trap, file, name];
  });
}

test("every trap has a test that exists, in a file that exists", () => {
  assert.ok(rows().length > 40);
  for (const [, trap = "", file = "", name = ""] of rows()) {
    assert.ok(existsSync(join(packageRoot, file)), `${trap}: ${file}`);
    const code = readFileSync(join(packageRoot, file), "utf8");
    // A name stands behind test(, or in a table of names that a loop gives to it.
    const quoted = [`"${name}"`, `\`${name}\``];
    assert.ok(
      quoted.some((text) => code.includes(text)),
      `${file}: expected a test ${JSON.stringify(name)}`,
    );
  }
});

test("all thirteen kinds of traps are there", () => {
  const numbers = new Set(rows().map(([number]) => number));
  for (let number = 1; number <= 13; number++) assert.ok(numbers.has(String(number)), `trap ${number}`);
});
