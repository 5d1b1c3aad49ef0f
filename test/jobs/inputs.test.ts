import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { createWriteStream, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { finished } from "node:stream/promises";
import { describe, test } from "node:test";
import { pathToFileURL } from "node:url";
import { ManifestError, PathError } from "../../src/jobs/errors.ts";
import { readInput } from "../../src/jobs/inputs.ts";
import { rootCheck } from "../../src/jobs/roots.ts";
import { collect, temporaryFolder } from "./temporary-folder.ts";

const root = temporaryFolder();
const data = join(root, "data");
mkdirSync(join(data, "images", "nested", "deep"), { recursive: true });
mkdirSync(join(data, "images", ".hidden"));
for (const name of [
  "b.jpg",
  "B.png",
  "a10.webp",
  "a2.avif",
  "é.gif",
  "x.TIFF",
  "y.tif",
  "z.jpeg",
  "notes.txt",
  "w.bmp",
  ".dot.jpg",
  "nested/c.jpg",
  "nested/deep/d.jpg",
  ".hidden/e.jpg",
]) {
  writeFileSync(join(data, "images", name), "");
}
writeFileSync(join(root, "secret.jpg"), "");
const roots = rootCheck([data]);
const uri = (path: string) => pathToFileURL(join(data, path)).href;

const read = (name: string) => collect(readInput(join(data, name), { roots }));
function list(name: string, contents: string | Uint8Array): string {
  writeFileSync(join(data, name), contents);
  return name;
}

async function problemsOf(name: string): Promise<ManifestError> {
  try {
    await read(name);
  } catch (error) {
    assert.ok(error instanceof ManifestError, `expected ManifestError, got ${error}`);
    return error;
  }
  assert.fail(`expected ${name} to be refused`);
}

describe("folder", () => {
  test("every image below it, in order of code units, hidden ones and other files left out", async () => {
    const items = await read("images");
    assert.deepEqual(
      items.map(({ image }) => image),
      [
        "B.png",
        "a10.webp",
        "a2.avif",
        "b.jpg",
        "nested/c.jpg",
        "nested/deep/d.jpg",
        "x.TIFF",
        "y.tif",
        "z.jpeg",
        "é.gif",
      ],
    );
    assert.deepEqual(
      items.map(({ index }) => index),
      items.map((_, i) => i),
    );
    assert.deepEqual(items[4], {
      index: 4,
      id: "nested/c.jpg",
      image: "nested/c.jpg",
      uri: uri("images/nested/c.jpg"),
      prompt: null,
    });
  });

  test("its file: URI is the same input", async () => {
    assert.deepEqual(
      await collect(readInput(pathToFileURL(join(data, "images")).href, { roots })),
      await read("images"),
    );
  });

  test("a link to an image outside is refused; a link to a folder is not entered", async () => {
    mkdirSync(join(data, "links"));
    writeFileSync(join(data, "links", "a.jpg"), "");
    symlinkSync(join(data, "images"), join(data, "links", "more"));
    symlinkSync(join(data, "images", "b.jpg"), join(data, "links", "b.jpg"));
    assert.deepEqual(
      (await read("links")).map(({ uri }) => uri),
      [uri("links/a.jpg"), uri("images/b.jpg")],
    );
    symlinkSync(join(root, "secret.jpg"), join(data, "links", "c.jpg"));
    const error = await problemsOf("links");
    assert.match(error.message, /image 3: .*BLIPFLEET_ROOTS.*links\/c\.jpg.*leads to ".*secret\.jpg"/);
  });

  test("without an image the job would be empty", async () => {
    mkdirSync(join(data, "none"));
    writeFileSync(join(data, "none", "readme.md"), "");
    assert.match(
      (await problemsOf("none")).message,
      /expected at least one image \(\.jpg.*got none; the job would be empty/,
    );
  });
});

describe("text list", () => {
  test("one path per line; LF, CRLF, a byte order mark, empty lines and no last newline are fine", async () => {
    const name = list(
      "list.txt",
      `\uFEFFimages/b.jpg\r\n\n${join(data, "images/z.jpeg")}\r\n${uri("images/é.gif")}\nmissing one.jpg`,
    );
    assert.deepEqual(await read(name), [
      { index: 0, id: "images/b.jpg", image: "images/b.jpg", uri: uri("images/b.jpg"), prompt: null },
      {
        index: 1,
        id: join(data, "images/z.jpeg"),
        image: join(data, "images/z.jpeg"),
        uri: uri("images/z.jpeg"),
        prompt: null,
      },
      { index: 2, id: uri("images/é.gif"), image: uri("images/é.gif"), uri: uri("images/é.gif"), prompt: null },
      { index: 3, id: "missing one.jpg", image: "missing one.jpg", uri: uri("missing one.jpg"), prompt: null },
    ]);
  });

  test("repeated paths are items of their own, with ids that stay unique whatever the paths are", async () => {
    const name = list("repeats.txt", "a.jpg\na.jpg\na.jpg#2\na.jpg\nb.jpg\na.jpg#2\n");
    assert.deepEqual(
      (await read(name)).map(({ id, image }) => [id, image]),
      [
        ["a.jpg", "a.jpg"],
        ["a.jpg#2", "a.jpg"],
        ["a.jpg#2#2", "a.jpg#2"],
        ["a.jpg#3", "a.jpg"],
        ["b.jpg", "b.jpg"],
        ["a.jpg#2#3", "a.jpg#2"],
      ],
    );
  });

  test("bytes that are not UTF-8 and endless lines are problems of their line", async () => {
    const name = list(
      "bytes.txt",
      Buffer.concat([
        Buffer.from("a.jpg\n\xff\xfe\n", "latin1"),
        Buffer.alloc(1_100_000, "x"),
        Buffer.from("\nb.jpg\n"),
      ]),
    );
    const error = await problemsOf(name);
    assert.deepEqual(error.problems, [
      "line 2: expected UTF-8, got bytes that are not",
      "line 3: expected at most 1048576 bytes, got a longer line",
    ]);
  });
});

describe("JSONL", () => {
  test("id, image, prompt; a number is an id; other fields are left alone", async () => {
    const name = list(
      "good.jsonl",
      [
        '{"id": "one", "image": "images/b.jpg", "prompt": "a photo of"}',
        '{"image": "images/b.jpg", "id": 7, "prompt": null, "width": 3}',
        "",
        '{"image": "images/b.jpg"}',
      ].join("\n"),
    );
    assert.deepEqual(
      (await read(name)).map(({ index, id, image, prompt }) => [index, id, image, prompt]),
      [
        [0, "one", "images/b.jpg", "a photo of"],
        [1, "7", "images/b.jpg", null],
        [2, "images/b.jpg", "images/b.jpg", null],
      ],
    );
  });

  test("every problem is listed with its line, and nothing but a problem is told twice", async () => {
    const name = list(
      "bad.jsonl",
      [
        '{"id": "a", "image": "images/b.jpg"}',
        "not json",
        '{"id": "b"}',
        '{"id": "a", "image": "images/b.jpg"}',
        "[1]",
        '{"image": 3}',
        '{"image": "x.jpg", "id": 1.5}',
        '{"image": "x.jpg", "prompt": ["q"]}',
        '{"image": "../../secret.jpg"}',
        '{"image": "https://example.com/x.jpg"}',
        '{"image": ""}',
        '{"image": "x.jpg", "id": ""}',
      ].join("\n"),
    );
    const error = await problemsOf(name);
    assert.equal(error.count, 11);
    assert.deepEqual(
      error.problems.map((problem) => /^line \d+/.exec(problem)?.[0]),
      [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12].map((n) => `line ${n}`),
    );
    for (const pattern of [
      /line 2: expected a JSON object, got text that is not JSON: not json/,
      /line 3: expected "image" to be a path, got none/,
      /line 4: expected a new id, got "a" as on line 1/,
      /line 5: expected a JSON object, got \[1\]/,
      /line 9: .*BLIPFLEET_ROOTS/,
      /line 10: .*https: comes later/,
      /got 11 problems; nothing was submitted/,
    ]) {
      assert.match(error.message, pattern);
    }
  });

  test("the first 20 problems are spelled out, the others counted", async () => {
    const name = list("many.jsonl", Array.from({ length: 300 }, () => "oops").join("\n"));
    const error = await problemsOf(name);
    assert.equal(error.problems.length, 20);
    assert.equal(error.count, 300);
    assert.match(error.message, /line 20: .*\n {2}… and 280 more$/s);
  });

  test("a given id that an earlier line got by default is a double too", async () => {
    const name = list("default.jsonl", '{"image": "x.jpg"}\n{"image": "y.jpg", "id": "x.jpg"}\n');
    assert.match((await problemsOf(name)).message, /line 2: expected a new id, got "x\.jpg" as on line 1/);
  });

  test("no line at all would be an empty job", async () => {
    assert.match((await problemsOf(list("empty.jsonl", "\n\n"))).message, /expected at least one image, got none/);
  });
});

describe("CSV", () => {
  test("header, quotes, line breaks in cells, other columns, empty id and prompt", async () => {
    const name = list(
      "good.csv",
      '\uFEFFid,image , caption,prompt\r\n1,images/b.jpg,x,"what, is\nit?"\r\n,"images/é.gif",,\r\n\r\n3,"a ""b"".jpg",y,p\r\n',
    );
    assert.deepEqual(
      (await read(name)).map(({ id, image, prompt }) => [id, image, prompt]),
      [
        ["1", "images/b.jpg", "what, is\nit?"],
        ["images/é.gif", "images/é.gif", null],
        ["3", 'a "b".jpg', "p"],
      ],
    );
  });

  test("problems by line: no image column, too few cells, an empty image, a double id, a quote that never ends", async () => {
    assert.match(
      (await problemsOf(list("head.csv", "id,path\n1,a.jpg\n"))).message,
      /line 1: expected a header with the column "image", got id,path/,
    );
    assert.match((await problemsOf(list("head2.csv", "image,image\na,b\n"))).message, /line 1: expected a header/);
    const error = await problemsOf(list("rows.csv", "id,image\n1,a.jpg\n2\n3,\n1,b.jpg\n4,c.jpg,x\n"));
    assert.deepEqual(error.problems, [
      "line 3: expected 2 columns as in the header, got 1",
      'line 4: expected "image" to be a path, got an empty cell',
      'line 5: expected a new id, got "1" as on line 2',
      "line 6: expected 2 columns as in the header, got 3",
    ]);
    assert.match(
      (await problemsOf(list("quote.csv", 'image\na.jpg\n"b.jpg\nc.jpg\n'))).message,
      /expected CSV, got: Quote Not Closed/,
    );
    assert.match((await problemsOf(list("only.csv", "image\n"))).message, /got none; the job would be empty/);
  });
});

describe("any input", () => {
  test("an unknown ending, a missing file and one outside the roots are refused", async () => {
    await assert.rejects(read(list("data.parquet", "x")), /ends with \.txt, \.jsonl or \.csv/);
    await assert.rejects(
      read("nowhere.txt"),
      (error: Error) => error instanceof PathError && /nowhere\.txt, got nothing there; check/.test(error.message),
    );
    await assert.rejects(read("../secret.jpg"), PathError);
    await assert.rejects(collect(readInput("s3://bucket/list.txt", { roots })), /s3: comes later/);
  });

  test("an abort ends the reading", async () => {
    const abort = new AbortController();
    const name = list("long.txt", Array.from({ length: 5000 }, (_, i) => `${i}.jpg`).join("\n"));
    const reading = collect(
      readInput(join(data, name), { roots, signal: abort.signal, onProgress: () => abort.abort(new Error("enough")) }),
    );
    await assert.rejects(reading, /enough|aborted/);
  });

  test("100,000 lines are planned in 40 MB of heap", { timeout: 120_000 }, async () => {
    // Holding the items would take more than the limit; the ids alone take about 8 MB.
    for (let i = 0; i < 9; i += 1) writeFileSync(join(data, "images", `${i}.jpg`), "");
    const big = createWriteStream(join(data, "big.jsonl"));
    for (let i = 0; i < 100_000; i += 1000) {
      const block = Array.from(
        { length: 1000 },
        (_, j) => `{"id":"item-${i + j}","image":"images/${(i + j) % 9}.jpg"}\n`,
      );
      if (!big.write(block.join(""))) await once(big, "drain");
    }
    big.end();
    await finished(big);
    const script = `
      import { planManifest, manifestItems } from ${JSON.stringify(new URL("../../src/jobs/manifest.js", import.meta.url).href)};
      import { rootCheck } from ${JSON.stringify(new URL("../../src/jobs/roots.js", import.meta.url).href)};
      import { folderStore } from ${JSON.stringify(new URL("../../src/jobs/store.js", import.meta.url).href)};
      const store = folderStore(${JSON.stringify(join(root, "big-job"))});
      const plan = await planManifest(store, ${JSON.stringify(join(data, "big.jsonl"))}, { roots: rootCheck([${JSON.stringify(data)}]) });
      let count = 0;
      for await (const item of manifestItems(store, plan)) if (item.id === "item-" + count) count += 1;
      process.stdout.write(JSON.stringify({ items: plan.items, count }));
    `;
    const child = spawnSync(process.execPath, ["--max-old-space-size=40", "--input-type=module", "-e", script], {
      encoding: "utf8",
    });
    assert.equal(child.stderr, "");
    assert.deepEqual(JSON.parse(child.stdout), { items: 100_000, count: 100_000 });
  });
});

test("a pipe in place of a list is refused, not waited for", { timeout: 10_000 }, async () => {
  spawnSync("mkfifo", [join(data, "pipe.jsonl")]);
  await assert.rejects(read("pipe.jsonl"), { name: "PathError", message: /pipe.jsonl, got a device, pipe or socket$/ });
});

describe("texts", () => {
  const readTexts = (name: string, texts: "none" | "optional" | "required" = "optional") =>
    collect(readInput(join(data, name), { roots, texts }));

  test("JSONL has one or a list of them, CSV a column; null and an empty cell are none, an empty text is one", async () => {
    const jsonl = list(
      "texts.jsonl",
      [
        { image: "a.jpg", text: "a dog" },
        { image: "b.jpg", texts: ["a cat", "a cat", ""], text: null },
        { image: "c.jpg", text: "" },
        { image: "d.jpg", text: null },
        { image: "e.jpg" },
      ]
        .map((line) => `${JSON.stringify(line)}\n`)
        .join(""),
    );
    const texts = async (name: string) => (await readTexts(name)).map((item) => item.texts);
    assert.deepEqual(await texts(jsonl), [["a dog"], ["a cat", "a cat", ""], [""], [], []]);
    const csv = list("texts.csv", 'text,image\n"a, b",a.jpg\n,b.jpg\n');
    assert.deepEqual(await texts(csv), [["a, b"], []]);
    assert.deepEqual(await texts(list("texts.txt", "a.jpg\n")), [[]]);
  });

  test("where they are not asked for, they are fields like any other", async () => {
    const name = list("other.jsonl", '{"image": "a.jpg", "text": 5, "texts": "x"}\n');
    assert.deepEqual(await readTexts(name, "none"), [
      { index: 0, id: "a.jpg", image: "a.jpg", uri: uri("a.jpg"), prompt: null },
    ]);
  });

  test("labels are texts in fields of another name, beside which `text` is a field like any other", async () => {
    const readLabels = (name: string) =>
      collect(readInput(join(data, name), { roots, texts: "required", textField: "label" }));
    const lines = (entries: readonly object[]) =>
      entries.map((line) => `${JSON.stringify({ image: "a.jpg", ...line })}\n`).join("");
    const named = list("labels.jsonl", lines([{ labels: ["cat", "dog"], text: 5 }, { label: "a cat" }]));
    const labels = (items: readonly { texts?: readonly string[] }[]) => items.map(({ texts }) => texts);
    assert.deepEqual(labels(await readLabels(named)), [["cat", "dog"], ["a cat"]]);
    const csv = list("labels.csv", "text,label,image\nx,cat,a.jpg\n");
    assert.deepEqual(labels(await readLabels(csv)), [["cat"]]);
    const wrong = list(
      "bad-labels.jsonl",
      lines([{ labels: "x" }, { label: 5 }, { label: "x", labels: [] }, { text: "x" }]),
    );
    const problems = await readLabels(wrong).then(
      () => [],
      (error: ManifestError) => error.problems,
    );
    assert.deepEqual(problems, [
      'line 1: expected "labels" to be a list of labels, got "x"',
      'line 2: expected "label" to be a label, got 5',
      'line 3: expected "label" or "labels", got both',
      'line 4: expected "label" or "labels" to compare the image with, got neither; or give every item the same with --label',
    ]);
  });

  test("what is no text, or none where there must be one, is a problem of its line", async () => {
    const name = list(
      "bad-texts.jsonl",
      [{ text: 5 }, { texts: "x" }, { texts: ["x", 5] }, { text: "x", texts: ["y"] }, {}, { texts: [] }]
        .map((line, i) => `${JSON.stringify({ image: `${i}.jpg`, ...line })}\n`)
        .join(""),
    );
    const problems = [
      'line 1: expected "text" to be a text, got 5',
      'line 2: expected "texts" to be a list of texts, got "x"',
      'line 3: expected "texts" to be a list of texts, got ["x",5]',
      'line 4: expected "text" or "texts", got both',
    ];
    const neither =
      'expected "text" or "texts" to compare the image with, got neither; or give every item the same with --text';
    const caught = (texts: "optional" | "required") =>
      readTexts(name, texts).then(
        () => [],
        (error: ManifestError) => error.problems,
      );
    assert.deepEqual(await caught("optional"), problems);
    assert.deepEqual(await caught("required"), [...problems, `line 5: ${neither}`, `line 6: ${neither}`]);
  });
});

test("relative paths of a list start at the folder that is named, or at its own", async () => {
  const name = list("paths.jsonl", '{"image": "c.jpg"}\n');
  const imageFolder = pathToFileURL(join(data, "images", "nested")).href;
  const [item] = await collect(readInput(join(data, name), { roots, imageFolder }));
  assert.deepEqual([item?.image, item?.uri], ["c.jpg", uri("images/nested/c.jpg")]);
  assert.equal((await read(name))[0]?.uri, uri("c.jpg"));
});
