// index and search as a user runs them: what is found is what `match` says of each image, and nothing is encoded twice.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { packageRoot } from "../../src/gpu/package-root.ts";
import { sha256 } from "../../src/jobs/store.ts";
import { imageScores } from "../../src/search/similarity.ts";
import { openImageIndex } from "../../src/search/vector-file.ts";
import { ImageIndexWriter } from "../../src/search/vector-file-writer.ts";
import { unevenVectors } from "../search/some-vectors.ts";
import { images, runCli } from "./run-cli.ts";

const folder = mkdtempSync(join(tmpdir(), "blipfleet-search-"));
after(() => rmSync(folder, { recursive: true, force: true }));
const ref = join(packageRoot, "test", "fixtures", "retrieval", "blip2-itm-tiny");
const pictures = join(folder, "pictures");
mkdirSync(join(pictures, "below"), { recursive: true });
const names = readdirSync(images).sort();
for (const [i, name] of names.entries()) copyFileSync(join(images, name), join(pictures, i % 2 ? "below" : "", name));
const file = join(folder, "pictures.index");

interface Line {
  readonly text: string;
  readonly like?: string;
  readonly similarity?: number;
  readonly rank: number;
  readonly image: string;
  readonly itc: number;
  readonly itm: number | null;
  readonly state?: string;
  readonly error?: { readonly type: string; readonly message: string };
}

function linesOf(stdout: string): Line[] {
  return stdout
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line));
}

async function index(...args: string[]): Promise<{ status: number | null; lines: Line[]; stderr: string }> {
  const { status, stdout, stderr } = await runCli(["index", ...args, "--out", file, "--format", "jsonl"]);
  return { status, lines: linesOf(stdout), stderr };
}

async function search(...args: string[]): Promise<{ status: number | null; lines: Line[]; stderr: string }> {
  const { status, stdout, stderr } = await runCli(["search", ...args, "--index", file, "--format", "jsonl"]);
  return { status, lines: linesOf(stdout), stderr };
}

test("a folder is indexed; what is found is what match says, exactly and in the right order", async () => {
  const made = await index(pictures, "--model", ref);
  assert.equal(made.status, 0, made.stderr);
  assert.equal(made.lines.length, names.length);
  assert.ok(made.lines.every(({ state }) => state === "encoded"));
  assert.match(made.stderr, /10 encoded, 0 kept; 10 images in all$/m);
  const text = "a photo of a cat";
  const matches: { image: string; itm: number; itc: number }[] = [];
  for (const { image } of made.lines) {
    const { stdout } = await runCli(["match", image, text, "--model", ref, "--format", "jsonl"]);
    matches.push(JSON.parse(stdout));
  }
  const byCosine = [...matches].sort((a, b) => b.itc - a.itc);
  const plain = await search(text, "--top", "100", "--rerank", "0");
  assert.equal(plain.status, 0, plain.stderr);
  assert.match(plain.stderr, /^10 images, each compared exactly$/m);
  assert.deepEqual(
    plain.lines,
    byCosine.map(({ image, itc }, i) => ({ text, rank: i + 1, image, itc, itm: null })),
  );
  const reranked = await search(text, "--top", "100", "--rerank", "9");
  assert.equal(reranked.status, 0, reranked.stderr);
  const [last] = reranked.lines.slice(9);
  assert.deepEqual([last?.image, last?.itm], [byCosine[9]?.image, null]);
  const first = reranked.lines.slice(0, 9);
  assert.deepEqual(new Set(first.map(({ image }) => image)), new Set(byCosine.slice(0, 9).map(({ image }) => image)));
  const itmOf = new Map(matches.map(({ image, itm }) => [image, itm]));
  for (const { image, itm } of first) assert.equal(itm, itmOf.get(image), image);
  assert.notDeepEqual(
    first.map(({ image }) => image),
    byCosine.slice(0, 9).map(({ image }) => image),
    "matching changes the order here; test/matching.test.ts has the formula",
  );
});

test("several texts, each by itself, in order; for people a table", async () => {
  const both = await search("red", "a photo of a cat", "--top", "2");
  assert.deepEqual(
    both.lines.map(({ text, rank }) => [text, rank]),
    [
      ["red", 1],
      ["red", 2],
      ["a photo of a cat", 1],
      ["a photo of a cat", 2],
    ],
  );
  assert.deepEqual((await search("a photo of a cat", "--top", "2")).lines, both.lines.slice(2));
  const { stdout } = await runCli(["search", "red", "--index", file, "--top", "2", "--rerank", "1"]);
  assert.match(
    stdout,
    /^rank {5}itc {5}itm {2}image\n {3}1 {2,3}-?\d\.\d{4} {2}0\.\d{4} {2}\S+\n {3}2 {2,3}-?\d\.\d{4} {7}- {2}\S+\n$/,
  );
});

test("known images are not encoded again, wherever they lie; changed ones are; broken ones fail alone", async () => {
  const before = readFileSync(file);
  const again = await index(pictures, "--model", ref);
  assert.ok(again.lines.every(({ state }) => state === "kept"));
  assert.deepEqual(readFileSync(file), before, "nothing new, nothing written");
  const copy = join(pictures, "copy.png");
  copyFileSync(join(images, "shapes.png"), copy);
  writeFileSync(join(pictures, "broken.png"), "no image");
  copyFileSync(join(packageRoot, "test/fixtures/resize/noise.png"), join(pictures, "below", names[1] ?? ""));
  const third = await index(pictures, "--model", ref);
  assert.equal(third.status, 1);
  const states = Object.fromEntries(third.lines.map(({ image, state, error }) => [image, state ?? error?.type]));
  assert.equal(states[copy], "kept");
  assert.equal(states[join(pictures, "broken.png")], "ImageError");
  assert.equal(states[join(pictures, "below", names[1] ?? "")], "encoded");
  assert.match(third.stderr, /1 encoded, 10 kept, 1 failed; 10 images in all$/m);
  const all = await search("red", "--top", "100", "--rerank", "0");
  assert.equal(all.lines.length, 10, "the image that was replaced has gone, the copy is no image of its own");
});

test("what the index has is only looked up: a file that no decoder takes is kept, once its bytes are in", async () => {
  const odd = join(folder, "odd.png");
  writeFileSync(odd, "no image at all");
  const refused = await index(odd, "--model", ref);
  assert.equal(refused.lines[0]?.error?.type, "ImageError");
  const made = (await openImageIndex(file)) ?? assert.fail("an index");
  const saved = readFileSync(file);
  const writer = await ImageIndexWriter.create(file, made.model);
  await writer.add(new Uint8Array(writer.imageBytes));
  await writer.commit([{ digest: sha256(readFileSync(odd)), images: ["/elsewhere.png"] }], made.version);
  const kept = await index(odd, "--model", ref);
  assert.equal(kept.lines[0]?.state, "kept", kept.stderr);
  writeFileSync(file, saved);
});

test("one index built in two goes finds the same as one built at once", async () => {
  const text = "a photo of a cat";
  const once = await search(text, "--top", "100", "--rerank", "3");
  rmSync(file);
  await index(join(pictures, "below"), "--model", ref);
  await index(pictures, "--model", ref);
  const twice = await search(text, "--top", "100", "--rerank", "3");
  assert.deepEqual(twice.lines, once.lines);
});

test("an image that has changed or gone since cannot be matched, and says so", async () => {
  const [first] = (await search("red", "--top", "1", "--rerank", "0")).lines;
  const path = first?.image ?? assert.fail("a result");
  const bytes = readFileSync(path);
  writeFileSync(path, readFileSync(join(packageRoot, "test/fixtures/resize/checks.png")));
  const { status, lines } = await search("red", "--top", "10", "--rerank", "3");
  writeFileSync(path, bytes);
  assert.equal(status, 1);
  const failed = lines.filter(({ error }) => error !== undefined);
  assert.deepEqual(
    failed.map(({ image, rank, itm, itc }) => ({ image, rank, itm, itc })),
    [{ image: path, rank: 3, itm: null, itc: first?.itc }],
    "behind those that were matched, before the others",
  );
  assert.equal(failed[0]?.error?.type, "ImageError");
  assert.match(
    failed[0]?.error?.message ?? "",
    /expected the image as it was indexed, got .* has other bytes; index it again/,
  );
});

test("images like one: the mean of the largest cosines, the image itself first, nothing matched", async () => {
  const path = join(images, "shapes.jpg");
  const { status, lines, stderr } = await search("red", "--image", path, "--top", "3");
  assert.equal(status, 0, stderr);
  assert.deepEqual(
    lines.map(({ text, like, rank }) => [text ?? like, rank]),
    [1, 2, 3].map((rank) => ["red", rank]).concat([1, 2, 3].map((rank) => [path, rank])),
    "texts first",
  );
  const made = (await openImageIndex(file)) ?? assert.fail("an index");
  const { model } = made;
  let values: Float32Array = new Float32Array();
  for await (const block of made.blocks()) values = block.values;
  const sizes = { images: made.images.length, queries: model.queries, width: model.width };
  const own = [...made.images].findIndex(({ digest }) => digest === sha256(readFileSync(path)));
  const vector = (q: number) => values.slice((own * model.queries + q) * model.width).subarray(0, model.width);
  const scores = imageScores(values, sizes, [Array.from({ length: model.queries }, (_, q) => vector(q))]);
  const found = lines.slice(3);
  assert.ok(Math.abs((found[0]?.similarity ?? 0) - 1) < 1e-6);
  for (const { image, similarity, itc, itm } of found) {
    const place = [...made.images].findIndex((each) => each.images[0] === image);
    assert.ok(Math.abs((similarity ?? 9) - (scores[place] ?? 0)) < 1e-6, image);
    assert.deepEqual([itc, itm], [undefined, undefined]);
  }
  const { stdout } = await runCli(["search", "--image", path, "--index", file, "--top", "1"]);
  assert.match(stdout, /^rank {2}similarity {2}image\n {3}1 {6}1\.0000 {2}\S+\n$/);
  const none = await search("--image", "package.json");
  assert.equal(none.status, 1);
  assert.match(none.stderr, /ImageError: package\.json: expected JPEG, /);
});

test("a page with the pictures, whatever the files are named", async () => {
  const odd = join(folder, "odd names");
  mkdirSync(odd);
  const named = ['a <b>&"it\'s".png', "50% é #1?.png", "two\nlines.png"];
  for (const [i, name] of named.entries()) copyFileSync(join(images, names[i] ?? ""), join(odd, name));
  const page = join(folder, "found <1>.html");
  const out = join(folder, "odd.index");
  const made = await runCli(["index", odd, "--out", out, "--model", ref]);
  assert.equal(made.status, 0, made.stderr);
  rmSync(join(odd, named[1] ?? ""));
  const query = ["<i>red</i>", "--image", join(odd, named[0] ?? "")];
  const { stderr } = await runCli(["search", ...query, "--index", out, "--html", page, "--rerank", "0"]);
  assert.match(stderr, /found <1>\.html: the pictures$/m);
  const html = readFileSync(page, "utf8");
  assert.match(html, /<h2>&lt;i&gt;red&lt;\/i&gt;<\/h2>/);
  assert.match(html, /<h2>Images like \/.*\/a &lt;b&gt;&amp;&quot;it&#39;s&quot;\.png<\/h2>/);
  assert.equal(
    html.match(/<img src="data:image\/jpeg;base64,\/9j\/[\w+/=]+" alt="">/g)?.length,
    4,
    "two of three, twice",
  );
  assert.equal(html.match(/<span class="missing">.*no such file.*<\/span>/g)?.length, 2);
  assert.equal(html.match(/itc -?\d\.\d{4}<br>/g)?.length, 3);
  assert.equal(html.match(/1\. similarity 1\.0000<br>/g)?.length, 1);
  assert.match(html, /href="file:\/\/[^"]*\/50%25%20%C3%A9%20%231%3F\.png">/);
  assert.match(html, /two lines\.png<\/a>/);
  assert.doesNotMatch(html, /<b>|<i>|https?:|<script/);
});

test("int8 vectors: less room, cosines nearly the same, and what an index has it keeps", async () => {
  const small = join(folder, "small.index");
  const args = ["--out", small, "--model", ref];
  assert.equal((await runCli(["index", join(pictures, "below"), ...args, "--vectors", "int8"])).status, 0);
  assert.equal((await runCli(["index", pictures, ...args])).status, 1, "the broken image");
  assert.equal((await openImageIndex(small))?.stored.type, "int8");
  const query = ["search", "red", "--top", "100", "--rerank", "0", "--format", "jsonl", "--index"];
  const [full, whole] = await Promise.all([runCli([...query, file]), runCli([...query, small])]);
  const itcOf = new Map(linesOf(full.stdout).map(({ image, itc }) => [image, itc]));
  const lines = linesOf(whole.stdout);
  assert.equal(lines.length, 10);
  assert.ok(lines.every(({ image, itc }) => Math.abs(itc - (itcOf.get(image) ?? 9)) < 0.01));
  assert.ok(lines.some(({ image, itc }) => itc !== itcOf.get(image)));
  const refused = await runCli(["index", pictures, ...args, "--vectors", "full"]);
  assert.match(refused.stderr, /expected an index with vectors in f32, got one in int8; leave --vectors out/);
  assert.equal(refused.status, 2);
});

test("an index with codes is searched by them, and says so; --exact compares all", async () => {
  const coded = join(folder, "coded.index");
  const { model } = (await openImageIndex(file)) ?? assert.fail("an index");
  const count = 3000;
  const values = unevenVectors(count, model.queries, model.width, 5);
  const writer = await ImageIndexWriter.create(coded, model);
  await writer.add(new Uint8Array(values.buffer));
  const list = Array.from({ length: count }, (_, i) => ({
    digest: sha256(Buffer.from(`${i}`)),
    images: [`/${i}.png`],
  }));
  await writer.commit(list, null, "always");
  const query = [
    "search",
    "red",
    "a photo of a cat",
    "--index",
    coded,
    "--top",
    "5",
    "--rerank",
    "0",
    "--format",
    "jsonl",
  ];
  const [byCodes, exact] = [await runCli(query), await runCli([...query, "--exact"])];
  assert.equal(byCodes.status, 0, byCodes.stderr);
  assert.match(
    byCodes.stderr,
    /^3000 images by their codes, at most \d+ of them compared exactly; --exact compares all$/m,
  );
  assert.match(exact.stderr, /^3000 images, each compared exactly$/m);
  assert.equal(linesOf(exact.stdout).length, 10);
  assert.equal(byCodes.stdout, exact.stdout);
  assert.equal(
    (await runCli(["index", join(images, "shapes.jpg"), "--out", coded, "--codes", "never"])).status,
    2,
    "no model",
  );
});

test("--codes adds codes to what is there, and takes them away", async () => {
  const has = async () => (await openImageIndex(file))?.basis !== null;
  const before = (await openImageIndex(file))?.images.length;
  assert.equal(await has(), false);
  const below = join(pictures, "below");
  await index(below, "--model", ref, "--codes", "always");
  assert.equal(await has(), true);
  await index(below, "--model", ref);
  assert.equal(await has(), true, "nothing new, nothing changed");
  await index(below, "--model", ref, "--codes", "never");
  assert.equal(await has(), false);
  assert.equal((await openImageIndex(file))?.images.length, before);
});

test("wrong use: one sentence, status 2", async () => {
  const other = join(packageRoot, "test", "fixtures", "retrieval", "blip2-itm-half");
  const empty = join(folder, "empty");
  mkdirSync(empty);
  for (const [args, message] of [
    [
      ["search", "x", "--index", file, "--model", other],
      /expected an index made with .*blip2-itm-half .*, got one made with .*tiny/,
    ],
    [
      ["search", "x", "--index", file, "--dtype", "f16"],
      /--dtype: expected f32, the type that .* was made with, got f16/,
    ],
    [
      ["search", "x", "--index", join(folder, "none")],
      /--index: expected a file made by `blipfleet index`, got no such file/,
    ],
    [
      ["search", "x", "--index", join(packageRoot, "README.md")],
      /expected an index of images made by `blipfleet index`, got another/,
    ],
    [["search", "of all ".repeat(30), "--index", file], /text: expected at most \d+ tokens/],
    [
      ["index", pictures, "--out", file, "--model", other],
      /expected an index made with .*half .*, got one made with .*tiny/,
    ],
    [["search", "--index", file], /search: expected a text or --image FILE, got neither/],
    [
      ["search", "x", "--index", file, "--html", join(folder, "no", "x.html")],
      /--html: expected a file in a folder that can be written, got no such folder/,
    ],
    [["index", empty, "--out", file, "--model", ref], /empty: expected images \(.*\), got a folder without any/],
    [
      ["index", pictures, "--out", join(folder, "no", "x"), "--model", ref],
      /expected a folder that can be written, got ENOENT/,
    ],
  ] as const) {
    const { status, stdout, stderr } = await runCli(args);
    assert.equal(stdout, "", args.join(" "));
    assert.match(stderr, message);
    assert.equal(status, 2, `${args.join(" ")}: ${stderr}`);
  }
});

/** A run that gets a signal with its first line. */
async function signalled(args: readonly string[], signal: NodeJS.Signals) {
  const child = spawn(process.execPath, [join(import.meta.dirname, "../../src/cli/main.js"), ...args]);
  let [stdout, stderr] = ["", ""];
  child.stdout.on("data", (data: Buffer) => {
    if (stdout === "") child.kill(signal);
    stdout += data.toString("utf8");
  });
  child.stderr.on("data", (data: Buffer) => {
    stderr += data.toString("utf8");
  });
  const status = await new Promise((resolve) => child.on("close", resolve));
  return { status, stdout, stderr };
}

test("Ctrl-C keeps what was done", async () => {
  const many = join(folder, "many");
  mkdirSync(many);
  const source = readFileSync(join(images, "gradient.png"));
  // PNG readers stop at the end chunk; what follows makes each file another image.
  for (let i = 0; i < 3000; i++) writeFileSync(join(many, `${i}.png`), Buffer.concat([source, Buffer.from(`${i}`)]));
  const out = join(folder, "many.index");
  const args = ["index", many, "--out", out, "--model", ref, "--format", "jsonl"];
  const { status, stdout, stderr } = await signalled(args, "SIGINT");
  assert.equal(status, 130, stderr);
  const told = /interrupted; (\d+) images were encoded, (\d+) are in /.exec(stderr);
  const count = linesOf(stdout).length;
  assert.ok(count > 0 && count < 3000, `${count} lines`);
  assert.deepEqual([Number(told?.[1]), Number(told?.[2])], [count, count], stderr);
  const found = await runCli(["search", "red", "--index", out, "--top", "5000", "--rerank", "0", "--format", "jsonl"]);
  assert.equal(linesOf(found.stdout).length, count);
});

test("what a run that was killed had encoded is not encoded again", async () => {
  const many = join(folder, "many");
  const some = join(folder, "some");
  mkdirSync(some);
  for (let i = 0; i < 150; i++) copyFileSync(join(many, `${i}.png`), join(some, `${i}.png`));
  const out = join(folder, "some.index");
  const args = ["index", some, "--out", out, "--model", ref, "--format", "jsonl"];
  const killed = await signalled(args, "SIGKILL");
  assert.equal(killed.status, null);
  const done = linesOf(killed.stdout).length;
  assert.ok(done > 0 && done < 150, `${done} lines`);
  assert.equal(await openImageIndex(out), null);
  const { status, stdout, stderr } = await runCli(args);
  assert.equal(status, 0, stderr);
  const told = /(\d+) encoded, (\d+) kept, (\d+) taken over from a run that was killed; 150 images in all$/m.exec(
    stderr,
  );
  const [encoded = 0, kept = 0, recovered = 0] = (told ?? []).slice(1).map(Number);
  assert.ok(recovered >= done, `${recovered} of ${done}: ${stderr}`);
  assert.deepEqual([encoded + recovered, kept], [150, recovered]);
  assert.equal(linesOf(stdout).filter(({ state }) => state === "encoded").length, encoded);
  assert.deepEqual(
    readdirSync(folder).filter((name) => name.startsWith(".some.index")),
    [],
  );
});
