// Every shader has its wrapper, its test, and at least three mutants that still apply; `npm run test:mutants` runs them.

import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { test } from "node:test";
import { packageRoot } from "../../src/gpu/package-root.ts";

const shaders = readdirSync(join(packageRoot, "shaders")).map((file) => basename(file, ".wgsl"));
const read = (...path: string[]) => readFileSync(join(packageRoot, ...path), "utf8");

test("there are shaders, and nothing else in their folder", () => {
  assert.ok(shaders.length >= 10);
  for (const file of readdirSync(join(packageRoot, "shaders"))) assert.match(file, /\.wgsl$/);
});

for (const shader of shaders) {
  test(`${shader}: wrapper, test and mutants`, () => {
    assert.ok(read("src", "kernels", `${shader}.ts`).includes(`launch("${shader}"`), "the wrapper launches it");
    assert.ok(
      read("test", "kernels", `${shader}.test.ts`).includes(`kernels/${shader}.ts"`),
      "its test calls the wrapper",
    );
    const { test: file = `kernels/${shader}.test.js`, mutants } = JSON.parse(read("test", "mutants", `${shader}.json`));
    assert.ok(existsSync(join(packageRoot, "test", file.replace(/\.js$/, ".ts"))), `${file} exists`);
    assert.ok(mutants.length >= 3, `${mutants.length} mutants, expected three or more`);
    const source = read("shaders", `${shader}.wgsl`);
    for (const { name, find, replace } of mutants) {
      assert.equal(source.split(find).length - 1, 1, `"${name}": \`${find}\` occurs once`);
      assert.notEqual(find, replace, name);
    }
  });
}

test("no mutants of shaders that are gone", () => {
  for (const file of readdirSync(join(packageRoot, "test", "mutants")))
    assert.ok(shaders.includes(basename(file, ".json")));
});
