// Python, its packages and the font may be missing: each has its sentence. What Python draws is not tested here.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { EvaluationError } from "../../evaluation/errors.ts";
import { renderedSets } from "../../evaluation/render-sets.ts";
import { packageRoot } from "../../src/gpu/package-root.ts";

const folder = await mkdtemp(join(tmpdir(), "blipfleet-render-"));
after(() => rm(folder, { recursive: true, force: true }));
const training = join(packageRoot, "training");

/** A folder for PATH whose python3 is this script, which logs its arguments. */
async function withPython(name: string, script: string): Promise<string> {
  const bin = join(folder, name);
  await mkdir(bin, { recursive: true });
  await writeFile(join(bin, "python3"), `#!/bin/sh\necho "$@" >> ${join(bin, "calls")}\n${script}\n`);
  await chmod(join(bin, "python3"), 0o755);
  return bin;
}

/** Answers as a Python of that version, makes environments of itself, installs, and draws by this script. */
const pretend = (version: string, draws: string) => `
case "$1" in
  -c) echo ${version} >&2 ;;
  -m) if [ "$2" = venv ]; then /bin/mkdir -p "$3/bin" && /bin/cp "$0" "$3/bin/python"; fi ;;
  *) ${draws} ;;
esac`;

/** Any file stands for the font. */
const anyFile = join(packageRoot, "package.json");

function render(path: string, told: string[] = [], font = anyFile): Promise<string> {
  const cacheFolder = join(path, "cache");
  const environment = { ...process.env, PATH: path, BLIPFLEET_EMOJI_FONT: font };
  return renderedSets({ cacheFolder, training, sets: ["test-iid"], environment, tell: (line) => told.push(line) });
}

const refusal = (pattern: RegExp) => (error: unknown) => {
  assert.ok(error instanceof EvaluationError, String(error));
  assert.match(error.message, pattern);
  assert.doesNotMatch(error.message, /\n/);
  return true;
};

test("no python3, and one that is too old: a sentence that names what to install", async () => {
  const empty = join(folder, "empty");
  await mkdir(empty);
  await assert.rejects(render(empty), refusal(/expected python3 3\.11 or newer .*, got none; install .* python3 /));
  await assert.rejects(
    render(await withPython("old", pretend("3 10", "exit 1"))),
    refusal(/expected python3 3\.11 or newer .*, got 3\.10; install/),
  );
});

test("a Python without venv, and one whose packages cannot be had", async () => {
  const noVenv = await withPython(
    "no-venv",
    'case "$1" in -c) echo 3 12 >&2 ;; *) echo no ensurepip >&2; exit 1 ;; esac',
  );
  await assert.rejects(render(noVenv), refusal(/got no ensurepip; install Debian's package python3-venv/));
  const noPackages = await withPython(
    "no-packages",
    pretend("3 12", "exit 0").replace(/fi ;;/, "else echo no index >&2; exit 1; fi ;;"),
  );
  await assert.rejects(
    render(noPackages),
    refusal(/expected pip to install .*numpy==.*, got no index; make a Python package index reachable/),
  );
  await assert.rejects(render(noPackages), refusal(/expected pip/), "what was half made is not taken for whole");
});

test("the environment is made once; progress is told, a failure's sentence is the error", async () => {
  const path = await withPython("good", pretend("3 12", "echo drawing >&2; echo drawn >&2"));
  const told: string[] = [];
  const sets = await render(path, told);
  assert.match(told[0] ?? "", /^making a Python environment with .*pillow==.* in /);
  assert.deepEqual(told.slice(1), ["drawing", "drawn"]);
  assert.equal(await render(path), sets);
  const calls = (await readFile(join(path, "calls"), "utf8")).trimEnd().split("\n");
  assert.equal(calls.filter((call) => call.startsWith("-m venv")).length, 1);
  assert.equal(calls.filter((call) => /^-m pip install .*numpy==[\d.]+/.test(call)).length, 1);
  const drawn = calls.filter((call) => call.includes("render_sets.py"));
  assert.deepEqual(drawn, Array(2).fill(`${join(training, "render_sets.py")} --out ${sets} --set test-iid`));

  const broken = await withPython("no-font", pretend("3 12", "echo the font is missing >&2; exit 1"));
  await assert.rejects(render(broken), refusal(/^the font is missing$/));
});

test("no font: a sentence that names its package, before anything is made", async () => {
  const path = await withPython("never", "exit 1");
  const font = join(folder, "absent.ttf");
  await assert.rejects(
    render(path, [], font),
    refusal(/absent\.ttf: expected the font .*, got no such file; install Debian's package fonts-noto-color-emoji/),
  );
  assert.equal(existsSync(join(path, "calls")), false);
});
