// What the documents name exists: files, folders, npm scripts and commands.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { createProgram } from "../../src/cli/program.ts";
import { packageRoot } from "../../src/gpu/package-root.ts";
import { readProjectFile } from "./project-files.ts";

const documents = ["README.md", "ARCHITECTURE.md"];

for (const document of documents) {
  const text = readProjectFile(document);

  test(`${document}: every path that it names is there`, () => {
    const named = [
      ...text.matchAll(/`((?:src|test|shaders|scripts|bin|bench|evaluation|deploy|examples|training)\/[\w./-]*)`/g),
    ];
    assert.equal(named.length > 0, true);
    // `x` stands for the name of something new
    const missing = named
      .map(([, path = ""]) => path)
      .filter((path) => !/\/x\.\w/.test(path) && !existsSync(join(packageRoot, path)));
    assert.deepEqual(missing, []);
  });

  test(`${document}: every npm script and command that it names is there`, () => {
    const { scripts } = JSON.parse(readProjectFile("package.json"));
    const runs = [...text.matchAll(/npm run ([\w:]+)/g)].map(([, name = ""]) => name);
    assert.deepEqual(
      runs.filter((name) => !(name in scripts)),
      [],
    );
    const program = createProgram();
    const commands = new Set(program.commands.map((command) => command.name()));
    const subcommands = new Set(
      program.commands.find((command) => command.name() === "job")?.commands.map((each) => each.name()),
    );
    const used = [
      ...text.matchAll(/(?:blipfleet|npx blipfleet|npx --no-install blipfleet) (?!--)([a-z]+)(?: ([a-z]+))?/g),
    ];
    const unknown = used.filter(([line, name = "", sub]) => {
      if (/^blipfleet (is|runs|caption's)/.test(line)) return false;
      return !commands.has(name) || (name === "job" && sub !== undefined && !subcommands.has(sub));
    });
    assert.deepEqual(
      unknown.map(([line]) => line),
      [],
    );
  });
}
