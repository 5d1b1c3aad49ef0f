// File names and sizes, and a reason for every dependency.

import assert from "node:assert/strict";
import { test } from "node:test";
import { projectFiles, readProjectFile } from "./project-files.ts";

const source = /\.(ts|mjs|wgsl)$/;
const ours = projectFiles().filter((path) => /^(src|test|shaders|scripts|bin|bench|evaluation|examples)\//.test(path));

test("source files are kebab-case", () => {
  const bad = ours
    .filter((path) => source.test(path))
    .filter((path) => {
      const name = path.split("/").at(-1) ?? "";
      return !/^[a-z0-9]+(-[a-z0-9]+)*(\.(test|long\.test))?\.(ts|mjs|wgsl)$/.test(name);
    });
  assert.deepEqual(bad, []);
});

test("no file is named for what it is not", () => {
  const vague = /(^|[-/.])(utils?|helpers?|managers?|base|common|misc|fast|v2|index)([-/.]|$)/;
  assert.deepEqual(
    ours.filter((path) => source.test(path) && vague.test(path)),
    [],
  );
});

test("a source file is short enough to read", () => {
  const lines = (path: string) => readProjectFile(path).split("\n").length;
  const long = ours.filter((path) => path.startsWith("src/") && source.test(path) && lines(path) > 420);
  assert.deepEqual(long, []);
});

test("every source file opens by saying what it is for", () => {
  const silent = ours
    .filter((path) => source.test(path) && !path.startsWith("test/"))
    .filter((path) => !/^(#!.*\n)?(\/\/ |\/\*\*? |\/\*\*\n \* )\S/.test(readProjectFile(path)));
  assert.deepEqual(silent, []);
});

test("no test is skipped, focused or left to do", () => {
  const pattern = /\b(?:test|it|describe)\.(?:skip|only|todo)\(|\{\s*(?:skip|todo|only):/;
  const bad = ours.filter((path) => path.endsWith(".test.ts") && path !== "test/layout/files.test.ts");
  assert.deepEqual(
    bad.filter((path) => pattern.test(readProjectFile(path))),
    [],
  );
});

test("every dependency has its reason in ARCHITECTURE.md", () => {
  const { dependencies, devDependencies } = JSON.parse(readProjectFile("package.json"));
  const architecture = readProjectFile("ARCHITECTURE.md");
  const missing = Object.keys({ ...dependencies, ...devDependencies }).filter((name) => {
    const line = architecture.split("\n").find((each) => each.includes(`\`${name}\``));
    return line === undefined || line.length < name.length + 30;
  });
  assert.deepEqual(missing, []);
});

test("dependencies are pinned, and every one is used", () => {
  const { dependencies, devDependencies } = JSON.parse(readProjectFile("package.json"));
  const loose = Object.entries({ ...dependencies, ...devDependencies }).filter(
    ([, version]) => !/^\d/.test(String(version)),
  );
  assert.deepEqual(loose, []);
  const texts = [...ours.filter((path) => source.test(path)), "tsconfig.json", "biome.json", "package.json"].map(
    (path) =>
      path === "package.json" ? JSON.stringify(JSON.parse(readProjectFile(path)).scripts) : readProjectFile(path),
  );
  const unused = Object.keys({ ...dependencies, ...devDependencies }).filter((name) => {
    const words = { typescript: "tsc", "@types/node": '"node"', "@biomejs/biome": "biome check" };
    const word = words[name as keyof typeof words] ?? name;
    return !texts.some((text) => text.includes(word));
  });
  assert.deepEqual(unused, []);
});

test("package.json has no bin, so that npx runs the link that set-up makes instead of installing the clone", () => {
  assert.equal(JSON.parse(readProjectFile("package.json")).bin, undefined);
});

test("the lock file knows the optional packages of every platform, without which `npm ci` refuses it", () => {
  const { packages } = JSON.parse(readProjectFile("package-lock.json"));
  const entries = Object.entries(packages as Record<string, { optionalDependencies?: Record<string, string> }>);
  const missing = entries.flatMap(([path, { optionalDependencies = {} }]) =>
    Object.keys(optionalDependencies).filter(
      (name) => !(`node_modules/${name}` in packages || `${path}/node_modules/${name}` in packages),
    ),
  );
  assert.deepEqual(missing, []);
});

test("the licence of every installed package may be used with ours", () => {
  const { packages } = JSON.parse(readProjectFile("package-lock.json"));
  const allowed =
    /^\(?(MIT|MIT-0|ISC|Apache-2\.0|BSD-2-Clause|BSD-3-Clause|0BSD|CC0-1\.0|CC-BY-4\.0|BlueOak-1\.0\.0|Python-2\.0|Unlicense|LGPL-3\.0-or-later)( (OR|AND) [\w.-]+)*\)?$/;
  const bad = Object.entries(packages as Record<string, { license?: string }>)
    // its package.json names the Unlicense in a field of old, which npm does not copy
    .filter(([path]) => path !== "" && path !== "node_modules/unionfs")
    .map(([path, { license }]) => `${path}: ${license}`)
    .filter(
      (line) =>
        !line
          .split(": ")[1]
          ?.split(" AND ")
          .every((part) => allowed.test(part)),
    );
  assert.deepEqual(bad, []);
});
