// What local commands are pointed at: files, folders, lists, and the outputs of jobs.

import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { UsageError } from "../../src/cli/errors.ts";
import { readListedFile } from "../../src/cli/image-files.ts";
import { sourceImages } from "../../src/cli/image-sources.ts";
import { ImageError } from "../../src/image/image-error.ts";
import { ManifestError } from "../../src/jobs/errors.ts";
import { temporaryFolder } from "../jobs/temporary-folder.ts";

const folder = temporaryFolder();
mkdirSync(join(folder, "photos"));
mkdirSync(join(folder, "empty"));
for (const name of ["b.png", "a.jpg", "notes.txt"]) writeFileSync(join(folder, "photos", name), "");
const write = (name: string, text: string) => {
  writeFileSync(join(folder, name), text);
  return join(folder, name);
};
const plain = (image: string, path = image) => ({ image, path, prompt: null, texts: [] });

test("files as they are named, folders whole, lists line by line, in their order", async () => {
  const photos = join(folder, "photos");
  const list = write("list.txt", "photos/b.png\n\n/elsewhere/c.jpg\n");
  assert.deepEqual(await sourceImages(["x.jpg", photos, list, "gone.jsonl"]), [
    plain("x.jpg"),
    plain(join(photos, "a.jpg")),
    plain(join(photos, "b.png")),
    plain("photos/b.png", join(folder, "photos/b.png")),
    plain("/elsewhere/c.jpg"),
    plain("gone.jsonl"),
  ]);
});

test("a job's output is a list: repeated ids are no mistake, its texts are read where they are asked for", async () => {
  const lines = [
    { id: "a", image: "a.jpg", status: "done", text: "a dog", source: "web", kept: true },
    { id: "a", image: "a.jpg", status: "done", text: "two cats", source: "synthetic", kept: false },
    { id: "b", image: "b.png", status: "failed", error: { type: "ImageError", message: "no image" } },
  ];
  const output = write("output.jsonl", lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
  const at = (image: string) => join(folder, "photos", image);
  const imageFolder = join(folder, "photos");
  assert.deepEqual(await sourceImages([output], { imageFolder }), [
    plain("a.jpg", at("a.jpg")),
    plain("a.jpg", at("a.jpg")),
    plain("b.png", at("b.png")),
  ]);
  const texts = (await sourceImages([output], { imageFolder, texts: true })).map((each) => each.texts);
  assert.deepEqual(texts, [["a dog"], ["two cats"], []]);
});

test("a relative path of a list that is not there: where such paths start; of other paths no word of it", async () => {
  const list = write("moved.jsonl", `{"image": "gone.png"}\n{"image": "${join(folder, "gone.png")}"}\n`);
  const [relative = assert.fail(), absolute = assert.fail()] = await sourceImages([list]);
  const message = `${join(folder, "gone.png")}: expected a readable image file, got no such file`;
  await assert.rejects(readListedFile(absolute), new ImageError(message));
  await assert.rejects(
    readListedFile(relative),
    new ImageError(`${message}; relative paths of a list start at the list's folder, or where --images FOLDER says`),
  );
  const [named = assert.fail()] = await sourceImages(["gone.png"]);
  await assert.rejects(readListedFile(named), /got no such file$/);
});

test("prompts of a list go with their images", async () => {
  const list = write("prompts.csv", "image,prompt\na.jpg,a photo of\nb.jpg,\n");
  assert.deepEqual(
    (await sourceImages([list])).map(({ prompt }) => prompt),
    ["a photo of", null],
  );
});

test("lines that name no image are told together, before anything is done; sources without images are wrong use", async () => {
  const list = write(
    "bad.jsonl",
    '{"image": "a.jpg"}\nno JSON\n{"image": "s3://bucket/a.jpg"}\n{"picture": "a.jpg"}\n',
  );
  await assert.rejects(sourceImages(["x.jpg", list]), (error) => {
    assert.ok(error instanceof ManifestError);
    assert.match(
      error.message,
      /^bad\.jsonl: expected every line to name an image, got 3 that do not; nothing was done\n/,
    );
    assert.match(error.message, /\n {2}line 2: expected a JSON object, got text that is not JSON: no JSON\n/);
    assert.match(error.message, /\n {2}line 3: .*s3: comes later/);
    return true;
  });
  await assert.rejects(sourceImages([join(folder, "empty")]), UsageError);
  await assert.rejects(
    sourceImages([write("empty.txt", "\n")]),
    /expected lines that name images, got a list without any/,
  );
});
