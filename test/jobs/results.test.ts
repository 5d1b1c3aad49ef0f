import assert from "node:assert/strict";
import { appendFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { IncompleteJobError, StoreError } from "../../src/jobs/errors.ts";
import { commitJsonl } from "../../src/jobs/jsonl.ts";
import { commitManifest } from "../../src/jobs/manifest.ts";
import {
  type AttemptResults,
  attemptsOf,
  commitResults,
  countResults,
  exportLines,
  type ResultLine,
  readResults,
  stageObjectName,
  statsLines,
  unfinishedItems,
} from "../../src/jobs/results.ts";
import { folderStore } from "../../src/jobs/store.ts";
import type { ItemResult, LabelLine } from "../../src/messages/item-result.ts";
import type { Committed, ManifestItem } from "../../src/messages/job.ts";
import { collect, temporaryFolder } from "./temporary-folder.ts";

const root = temporaryFolder();
let folders = 0;

async function* items(count: number): AsyncGenerator<ManifestItem> {
  for (let index = 0; index < count; index += 1) {
    yield { index, id: `i${index}`, image: `${index}.jpg`, uri: `file:///${index}.jpg`, prompt: null };
  }
}

const done = (i: number): ItemResult => ({
  id: `i${i}`,
  image: `${i}.jpg`,
  status: "done",
  text: `text ${i}`,
  token_ids: [i, 2],
});
const failed = (i: number, message = "expected an image, got none"): ItemResult => ({
  id: `i${i}`,
  image: `${i}.jpg`,
  status: "failed",
  error: { type: "ImageError", message },
});
const line = (index: number, result: ItemResult = done(index), adapter = "GPU A"): ResultLine => ({
  index,
  result,
  maker: { adapter, worker: "w1" },
});

/** A job of `count` items with chunks of result lines, in the order given; each chunk is one list of objects. */
async function job(count: number, chunks: readonly (readonly (readonly ResultLine[])[])[]): Promise<AttemptResults> {
  folders += 1;
  const store = folderStore(join(root, `job-${folders}`));
  const manifest = await commitManifest(store, items(count), { shardSize: 4 });
  const committed = await Promise.all(
    chunks.map(async (parts, chunk) => ({
      chunk,
      objects: await Promise.all(
        parts.map((lines, part) => commitResults(store, stageObjectName(chunk, "generate", part), lines)),
      ),
    })),
  );
  return { store, manifest, chunks: committed };
}

test("names are numbered so that they sort", () => {
  assert.equal(stageObjectName(12, "generate", 3), "chunks/000012/generate.00003.jsonl");
  assert.equal(stageObjectName(0, "encode"), "chunks/000000/encode.jsonl");
});

test("result lines come back as they were committed", async () => {
  const store = folderStore(join(root, "lines"));
  const question: ItemResult = {
    id: "q",
    image: "q.jpg",
    status: "done",
    question: "what?",
    text: "ünï\u2028\n",
    token_ids: [],
  };
  const lines = [line(3), line(4, failed(4)), line(5, question)];
  const committed = await commitResults(store, "chunks/000000/generate.jsonl", lines);
  assert.deepEqual(await readResults(store, committed), lines);
});

test("the export has one line per item in manifest order, with the documented fields in the documented order", async () => {
  const asked: ItemResult = {
    token_ids: [5],
    text: "two cats",
    status: "done",
    image: "1.jpg",
    id: "i1",
    question: "how many?",
  };
  const attempt = await job(3, [[[line(2), line(0)], [line(1, asked)]]]);
  assert.deepEqual(await collect(exportLines([attempt])), [
    '{"id":"i0","image":"0.jpg","status":"done","text":"text 0","token_ids":[0,2]}\n',
    '{"id":"i1","image":"1.jpg","status":"done","question":"how many?","text":"two cats","token_ids":[5]}\n',
    '{"id":"i2","image":"2.jpg","status":"done","text":"text 2","token_ids":[2,2]}\n',
  ]);
});

test("a line per label, each with its share or its error; a shape that no label has is refused", async () => {
  const error = { type: "TextError", message: "too long" };
  const cat = { probability: 0.75, logit: 2, label: "cat" };
  const image = { image: "0.jpg", id: "i0" };
  const attempt = await job(3, [
    [
      [
        line(0, { labels: [cat, { logit: 1, probability: 0.25, label: "dog" }], status: "done", ...image }),
        line(1, { ...failed(1), error, labels: [cat, { error, label: "long" }] } as ItemResult),
        line(2, { id: "i2", image: "2.jpg", status: "done", labels: [] }),
      ],
    ],
  ]);
  assert.deepEqual(await collect(exportLines([attempt])), [
    '{"id":"i0","image":"0.jpg","status":"done","label":"cat","logit":2,"probability":0.75}\n',
    '{"id":"i0","image":"0.jpg","status":"done","label":"dog","logit":1,"probability":0.25}\n',
    '{"id":"i1","image":"1.jpg","status":"done","label":"cat","logit":2,"probability":0.75}\n',
    '{"id":"i1","image":"1.jpg","status":"failed","label":"long","error":{"type":"TextError","message":"too long"}}\n',
  ]);
  const store = folderStore(join(root, "labels"));
  const committed = async (name: string, label: LabelLine) =>
    (await commitResults(store, name, [line(0, { ...image, status: "done", labels: [label] })])).sha256;
  assert.equal(await committed("a", cat), await committed("b", { label: "cat", logit: 2, probability: 0.75 }));
  const half = { ...image, status: "done", labels: [{ label: "cat", logit: 2 }] };
  const bad = await commitJsonl(store, "bad.jsonl", [line(0, half as unknown as ItemResult)]);
  await assert.rejects(
    readResults(store, bad),
    /^StoreError: bad\.jsonl:1: expected the form that this version writes/,
  );
});

test("the export's bytes do not depend on parts, on the order of chunks or on who made what", async () => {
  const a = await job(9, [
    [[line(0), line(1), line(2)]],
    [[line(3), line(4, failed(4)), line(5)]],
    [[line(6), line(7), line(8)]],
  ]);
  const b = await job(9, [
    [[line(2, done(2), "GPU B")], [line(1), line(0)]],
    [[line(4, failed(4), "GPU C")], [line(5)], [line(3)]],
    [[line(8)], [line(6), line(7)]],
  ]);
  const reversed = { ...b, chunks: [...b.chunks].reverse() };
  const text = (await collect(exportLines([a]))).join("");
  assert.equal((await collect(exportLines([reversed]))).join(""), text);
  assert.equal(text.split("\n").length - 1, 9);
  assert.ok(!text.includes("GPU"));
});

test("stats name who made each item, in the same order", async () => {
  const attempt = await job(3, [[[line(0), line(1, failed(1), "GPU B")]], [[line(2, done(2), "GPU C")]]]);
  assert.deepEqual(
    (await collect(statsLines([attempt]))).map((text) => JSON.parse(text)),
    [
      { id: "i0", status: "done", adapter: "GPU A", worker: "w1" },
      { id: "i1", status: "failed", adapter: "GPU B", worker: "w1" },
      { id: "i2", status: "done", adapter: "GPU C", worker: "w1" },
    ],
  );
});

test("an export with missing items is refused before its first line, unless it may be partial", async () => {
  const attempt = await job(6, [[[line(0), line(1)]], [[line(4), line(5)]]]);
  const lines: string[] = [];
  await assert.rejects(
    async () => {
      for await (const text of exportLines([attempt])) lines.push(text);
    },
    (error: Error) => {
      assert.ok(error instanceof IncompleteJobError);
      assert.deepEqual([error.missing, error.total], [2, 6]);
      assert.match(error.message, /each of 6 items, got 2 without one \(the first is "i2"\).*--partial/);
      return true;
    },
  );
  assert.deepEqual(lines, []);
  const partial = await collect(exportLines([attempt], { partial: true }));
  assert.deepEqual(
    partial.map((text) => JSON.parse(text).id),
    ["i0", "i1", "i4", "i5"],
  );
  assert.deepEqual(await countResults([attempt]), { items: 6, done: 4, failed: 0, missing: 2 });
  await assert.rejects(collect(exportLines([])), /no manifest yet/);
});

test("a result twice, of another item, or beyond the manifest is an error", async () => {
  const twice = await job(4, [[[line(0), line(1)]], [[line(1), line(2), line(3)]]]);
  await assert.rejects(collect(exportLines([twice])), /expected item 1 once, got it again in chunk 1/);
  const inOnePart = await job(2, [[[line(0), line(1)], [line(0)]]]);
  await assert.rejects(collect(exportLines([inOnePart])), /expected item 0 once/);
  const other = await job(2, [[[line(0), line(1, done(7))]]]);
  await assert.rejects(collect(exportLines([other])), /expected item 1 to be "i1", got a result of "i7"/);
  const otherImage = await job(2, [[[line(0), line(1, { ...done(1), image: "7.jpg" })]]]);
  await assert.rejects(collect(exportLines([otherImage])), /expected item 1 to be "i1"/);
  const otherId = await job(2, [[[line(0), line(1, { ...done(1), id: "i7" })]]]);
  await assert.rejects(collect(exportLines([otherId])), /expected item 1 to be "i1", got a result of "i7"/);
  const beyond = await job(2, [[[line(0), line(1), line(2)]]]);
  await assert.rejects(collect(exportLines([beyond])), /expected 2 items, got a result for item 2/);
});

test("only objects with their committed digest are read", async () => {
  const attempt = await job(2, [[[line(0), line(1)]]]);
  // What a late worker writes beside them does not matter …
  await commitResults(attempt.store, stageObjectName(0, "generate", 1), [line(0, done(9))]);
  assert.equal((await collect(exportLines([attempt]))).length, 2);
  // … and what was changed is refused.
  appendFileSync(join(new URL(attempt.store.uri).pathname, stageObjectName(0, "generate", 0)), "\n");
  await assert.rejects(collect(exportLines([attempt])), StoreError);
});

test("a row that this version did not write is refused with its place", async () => {
  const store = folderStore(join(root, "rows"));
  const bad = await commitJsonl(store, "bad.jsonl", [line(0), { index: 1, result: { id: "x" }, maker: {} }]);
  await assert.rejects(readResults(store, bad), (error: Error) => {
    assert.ok(error instanceof StoreError);
    assert.match(error.message, /^bad\.jsonl:2: expected the form that this version writes/);
    return true;
  });
  const text = await store.commit("text.jsonl", Buffer.from("{]\n"));
  await assert.rejects(readResults(store, text), /text\.jsonl:1: expected JSON/);
});

test("a later attempt replaces failures and fills gaps, and nothing else", async () => {
  const first = await job(6, [[[line(0), line(1, failed(1)), line(2, failed(2))]], [[line(3), line(4, failed(4))]]]);
  const unfinished = await collect(unfinishedItems([first]));
  assert.deepEqual(
    unfinished.map(({ index, id, uri }) => [index, id, uri]),
    [
      [0, "i1", "file:///1.jpg"],
      [1, "i2", "file:///2.jpg"],
      [2, "i4", "file:///4.jpg"],
      [3, "i5", "file:///5.jpg"],
    ],
  );
  const store = folderStore(join(root, "second-attempt"));
  const manifest = await commitManifest(store, unfinishedItems([first]));
  const again = (index: number, result: ItemResult) => line(index, result, "GPU B");
  const objects = [
    await commitResults(store, stageObjectName(0, "generate"), [
      again(0, done(1)),
      again(1, failed(2, "again")),
      again(3, done(5)),
    ]),
  ];
  const second = { store, manifest, chunks: [{ chunk: 0, objects }] };
  const text = await collect(exportLines([first, second]));
  assert.deepEqual(
    text.map((entry) => [JSON.parse(entry).id, JSON.parse(entry).status]),
    [
      ["i0", "done"],
      ["i1", "done"],
      ["i2", "failed"],
      ["i3", "done"],
      ["i4", "failed"],
      ["i5", "done"],
    ],
  );
  assert.match(text[2] ?? "", /again/, "the later failure is the one that is told");
  assert.deepEqual(await countResults([first, second]), { items: 6, done: 4, failed: 2, missing: 0 });
  assert.deepEqual(
    (await collect(unfinishedItems([first, second]))).map(({ index, id }) => [index, id]),
    [
      [0, "i2"],
      [1, "i4"],
    ],
  );
  const stats = (await collect(statsLines([first, second]))).map((entry) => JSON.parse(entry).adapter);
  assert.deepEqual(stats, ["GPU A", "GPU B", "GPU B", "GPU A", "GPU A", "GPU B"]);
});

test("done beats failed and a later failure an earlier one, whatever a later attempt tries again", async () => {
  const say = (i: number, text: string): ItemResult => ({ ...done(i), text }) as ItemResult;
  const first = await job(4, [[[line(0), line(1, failed(1)), line(2, failed(2)), line(3, failed(3))]]]);
  const second = await job(4, [[[line(0, say(0, "second")), line(1, say(1, "second")), line(2, failed(2, "second"))]]]);
  const third = await job(4, [[[line(1, failed(1, "third")), line(2, failed(2, "third")), line(3, say(3, "third"))]]]);
  const results = (await collect(exportLines([first, second, third]))).map((text): ItemResult => JSON.parse(text));
  assert.deepEqual(
    results.map((result) => (result.status === "failed" ? result.error.message : "text" in result && result.text)),
    ["text 0", "second", "third", "third"],
  );
});

test("attempts are found through the chain of pages that the workflow names", async () => {
  const store = folderStore(join(root, "chain"));
  const manifest = await commitManifest(store, items(6), { shardSize: 4 });
  let head: Committed | null = null;
  for (const [page, chunks] of [
    [0, [1, 0]],
    [1, [2]],
  ] as const) {
    const entries = [];
    for (const chunk of chunks) {
      const lines = [line(chunk * 2), line(chunk * 2 + 1)];
      const result = await commitResults(store, stageObjectName(chunk, "generate"), lines);
      entries.push({ chunk, result, done: 2, failed: 0 });
    }
    head = await commitJsonl(store, `pages/${page}.json`, [{ page, previous: head, chunks: entries }]);
  }
  const folder = pathToFileURL(join(root, "chain")).href;
  const attempts = await attemptsOf([
    { folder, manifest, head },
    { folder: pathToFileURL(join(root, "unplanned")).href, manifest: null, head: null },
  ]);
  assert.equal(attempts.length, 1);
  const ids = (await collect(exportLines(attempts))).map((text) => JSON.parse(text).id);
  assert.deepEqual(ids, ["i0", "i1", "i2", "i3", "i4", "i5"]);
  assert.deepEqual(await countResults(await attemptsOf([{ folder, manifest, head: null }])), {
    items: 6,
    done: 0,
    failed: 0,
    missing: 6,
  });
});
