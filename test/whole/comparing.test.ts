// match, classify, index and capfilt as jobs: what they give is what the local commands give, whichever workers do it and whoever dies.

import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { requestFor } from "../../src/cli/job-submit.ts";
import { packageRoot } from "../../src/gpu/package-root.ts";
import { Fleet, type Ran } from "./fleet.ts";
import { writePictures } from "./pictures.ts";

const fixtures = join(packageRoot, "test", "fixtures");
const captioner = join(fixtures, "models", "blip2-opt-tiny");
const matcher = join(fixtures, "retrieval", "blip2-itm-tiny");
const clip = join(fixtures, "clip", "clip-tiny");
const items = 18;
const texts = ["a dog", "two red squares", "a dog"];
const compared = ["--model", matcher, "--dtype", "f32"];
const filtered = ["--model", captioner, "--filter-model", matcher, "--dtype", "f32", "--max-new-tokens", "6"];

let images: string;
let paths: string[];
let list: string;
let fleet: Fleet;

before(async () => {
  images = await mkdtemp(join(tmpdir(), "blipfleet-images-"));
  paths = await writePictures(join(images, "pictures"), items);
  await writeFile(join(images, "broken.png"), "no image");
  list = join(images, "web.jsonl");
  const lines = paths.map((_, i) => ({
    image: `pictures/picture-${String(i).padStart(4, "0")}.png`,
    ...(i === 0 ? { texts } : i === 1 ? {} : { text: i % 3 === 0 ? "" : `picture ${i}` }),
  }));
  const broken = { image: "broken.png", text: "a dog" };
  await writeFile(list, [...lines, broken].map((line) => `${JSON.stringify(line)}\n`).join(""));
  fleet = await Fleet.open(images, { BLIPFLEET_HEARTBEAT_TIMEOUT: "3", BLIPFLEET_SILENT_AFTER: "5" });
});

after(async () => {
  await fleet?.close();
  await rm(images, { recursive: true, force: true });
});

interface Line {
  readonly id?: string;
  readonly status?: string;
  readonly error?: { readonly type: string };
  readonly [field: string]: unknown;
}

function linesOf({ stdout }: Pick<Ran, "stdout">): Line[] {
  return stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
}

/** A job's lines as the local command has them. Sentences about files name them differently. */
function asLocal(lines: readonly Line[]): Line[] {
  return lines.map(({ id: _, status: __, error, ...line }) =>
    error ? { ...line, error: { type: error.type } } : line,
  );
}

const bothModels = () => fleet.worker({ model: captioner, args: ["--model", matcher, "--dtype", "f32"] });

test("capfilt: a job whose worker is killed decides as the local command, once for every text", async () => {
  const local = await fleet.run(["capfilt", list, ...filtered, "--threshold", "0.014", "--format", "jsonl"]);
  assert.equal(local.status, 1, local.stderr); // of the broken one
  const wanted = linesOf(local);
  assert.ok(wanted.some(({ kept }) => kept === true) && wanted.some(({ kept, itm }) => kept === false && itm !== null));
  assert.equal(wanted.filter(({ source }) => source === "synthetic").length, items);
  assert.ok(new Set(wanted.map(({ text }) => text)).size > items, "expected captions that differ");

  const first = await bothModels();
  const submit = [
    "job",
    "submit",
    list,
    "--task",
    "capfilt",
    "--threshold",
    "0.014",
    "--chunk-size",
    "3",
    "--window",
    "2",
  ];
  await fleet.must([...submit, "--id", "capfilt", ...filtered]);
  const { done } = await fleet.until("capfilt", "to be under way", (progress) => progress.done > 0);
  assert.ok(done < items, `${done} were done before anybody looked`);
  await first.kill();
  await bothModels();
  const ended = await fleet.until("capfilt", "to end", ({ state }) => state === "done");
  assert.deepEqual([ended.done, ended.failed, ended.firstFailure?.id], [items, 1, "broken.png"]);
  assert.equal(ended.firstFailure?.error.type, "ImageError");
  const exported = linesOf(await fleet.run(["job", "export", "capfilt"]));
  assert.deepEqual(asLocal(exported), asLocal(wanted));
  const kept = linesOf(await fleet.run(["job", "export", "capfilt", "--kept"]));
  assert.deepEqual(
    kept,
    exported.filter((line) => line.kept),
  );
});

test("index: the file of a job is that of the local command; what an index has is not encoded again", async () => {
  const [local, own] = [join(images, "local.index"), join(images, "job.index")];
  const few = join(images, "few.txt");
  await writeFile(few, paths.slice(0, 10).join("\n"));
  await fleet.must(["job", "submit", few, "--task", "index", "--id", "few", "--watch", ...compared]);
  const output = join(images, "few.jsonl");
  const few10 = await fleet.must(["job", "export", "few", "--index", own, "--output", output]);
  assert.match(few10, /: 10 encoded, 0 kept; 10 images in all$/m);
  // The job's lines are a list of images in turn, and so are those of any other job.
  await fleet.must(["index", output, "--out", local, ...compared]);
  assert.deepEqual(await readFile(own), await readFile(local));

  const folder = join(images, "pictures");
  await fleet.must(["index", folder, "--out", local, ...compared]);
  const submit = ["job", "submit", folder, "--task", "index", "--index", own, "--id", "more", "--watch"];
  await fleet.must([...submit, ...compared]);
  const { encode } = (await fleet.progress("more"))?.stages ?? {};
  assert.deepEqual([encode?.made, encode?.reused], [items - 10, 10]);
  await fleet.must(["job", "export", "more", "--index", own]);
  assert.deepEqual(await readFile(own), await readFile(local));
  const misplaced = await fleet.run(["job", "export", "capfilt", "--index", own]);
  assert.equal(misplaced.status, 2);
  assert.match(misplaced.stderr, /--index: expected a job of --task index, got capfilt, one of capfilt; leave it out/);
});

test("match: fused, and split over two workers, a job gives what the local command gives", async () => {
  const [first = "", second = ""] = paths;
  const local = [];
  for (const [image, asked] of [
    [first, texts],
    [second, ["by the job"]],
  ] as const) {
    const lines = linesOf(await fleet.run(["match", image, ...asked, ...compared, "--format", "jsonl"]));
    local.push(...lines.map(({ image: _, ...line }) => line));
  }
  const pairs = join(images, "pairs.jsonl");
  const lines = [{ image: first, texts }, { image: second }, { image: paths[2], text: "three" }];
  await writeFile(pairs, lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
  const submit = ["job", "submit", pairs, "--task", "match", "--text", "by the job", "--watch", ...compared];
  await fleet.must([...submit, "--id", "fused"]);
  await fleet.killWorkers();
  await Promise.all((["encode", "query"] as const).map((stage) => fleet.worker({ model: matcher, stages: [stage] })));
  await fleet.must([...submit, "--id", "split", "--topology", "split"]);
  const fused = await fleet.must(["job", "export", "fused"]);
  assert.equal(await fleet.must(["job", "export", "split"]), fused);
  const same = linesOf({ stdout: fused }).map(({ id: _, image: __, status: ___, ...line }) => line);
  assert.deepEqual(same.slice(0, 4), local);
  assert.equal(same.length, 5);
});

test("classify, and index with CLIP: fused, and split over two workers, a job gives what the local command gives", async () => {
  const classifying = ["--model", clip, "--dtype", "f32"];
  const templates = ["--template", "a photo of a {}", "--template", "{}, red!"];
  const [first = "", second = ""] = paths;
  const local = [];
  const long = "of all ".repeat(30);
  for (const [image, labels] of [
    [first, ["cat", "dog", "cat"]],
    [second, ["red", long, "blue"]],
  ] as const) {
    local.push(
      ...linesOf(await fleet.run(["classify", image, ...labels, ...templates, ...classifying, "--format", "jsonl"])),
    );
  }
  assert.equal(local.filter(({ error }) => error === undefined).length, 5);
  const labelled = join(images, "labelled.jsonl");
  const lines = [{ image: first }, { image: second, labels: ["red", long, "blue"], text: "of no meaning" }];
  await writeFile(labelled, lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
  const asked = ["--label", "cat", "dog", "--label", "cat", ...templates, "--watch", ...classifying];
  const submit = ["job", "submit", labelled, "--task", "classify", ...asked];
  await fleet.killWorkers();
  // Fused work goes to the first of them.
  await Promise.all((["encode", "query"] as const).map((stage) => fleet.worker({ model: clip, stages: [stage] })));
  assert.equal((await fleet.run([...submit, "--id", "classified"])).status, 1); // of the label that is too long
  const file = [join(images, "clip.index"), join(images, "clip-job.index")] as const;
  await fleet.must(["job", "submit", labelled, "--task", "index", "--id", "clip", "--watch", ...classifying]);
  assert.equal((await fleet.run([...submit, "--id", "classified-split", "--topology", "split"])).status, 1);
  const fused = await fleet.run(["job", "export", "classified"]);
  assert.equal((await fleet.run(["job", "export", "classified-split"])).stdout, fused.stdout);
  assert.deepEqual(asLocal(linesOf(fused)), asLocal(local));
  await fleet.must(["job", "export", "clip", "--index", file[1]]);
  await fleet.must(["index", first, second, "--out", file[0], ...classifying]);
  assert.deepEqual(await readFile(file[1]), await readFile(file[0]));
});

test("a model that cannot do the task, and items without texts: one sentence at submit, and no job", async () => {
  const of = (ref: string) => ({ ref, dtype: "f32" }) as const;
  const judge = (ref: string) => ({ task: "capfilt", filter: { ...of(ref), threshold: 0.5 } }) as const;
  const refused: readonly (readonly [string, Parameters<typeof requestFor>[3], RegExp])[] = [
    [clip, { task: "match" }, /expected a model that has a matching head .*, got CLIPModel/],
    [captioner, { task: "match" }, /expected a model that has a matching head/],
    [captioner, { task: "index" }, /expected a model that compares images with texts/],
    [
      matcher,
      { task: "classify" },
      /expected a model that classifies images by labels, got Blip2ForImageTextRetrieval/,
    ],
    [matcher, judge(matcher), /expected a model that captions images, got Blip2ForImageTextRetrieval/],
    [captioner, judge(clip), /expected a model that has a matching head .*, got CLIPModel/],
  ];
  for (const [ref, options, message] of refused) {
    await assert.rejects(requestFor("refused", list, of(ref), options), { name: "UnsupportedModelError", message });
  }
  const ran = await fleet.run(["job", "submit", list, "--id", "refused", "--task", "match", ...compared]);
  assert.equal(ran.status, 2);
  assert.match(ran.stderr, /ManifestError: web\.jsonl: .*\n {2}line 2: expected "text" or "texts" /);
  assert.equal(ran.stdout, "");
  const unlabelled = ["job", "submit", list, "--task", "classify", "--label", "cat", "--model", captioner];
  const unfit = await fleet.run(unlabelled);
  assert.deepEqual([unfit.status, unfit.stdout], [2, ""]);
  assert.match(unfit.stderr, /^blipfleet: .*expected a model that classifies images by labels, got Blip2For.*\n$/);
  const idle = await fleet.run(["worker", "--model", matcher, "--stages", "generate"]);
  assert.equal(idle.status, 2);
  assert.match(
    idle.stderr,
    /--stages generate: expected a model that writes texts, got .*, which has encode and query only/,
  );
});
