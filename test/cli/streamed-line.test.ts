import assert from "node:assert/strict";
import { test } from "node:test";
import { Progress } from "../../src/cli/progress.ts";
import { StreamedLine } from "../../src/cli/streamed-line.ts";

const progress = new Progress(1, { noun: "images", stream: { write: () => true } });

/** What is written for texts that come, piece by piece; the last is the whole. */
function written(...texts: string[]): string[] {
  const pieces: string[] = [];
  const line = new StreamedLine((text) => pieces.push(text));
  for (const text of texts.slice(0, -1)) line.show("x\t", text, progress);
  line.finish("x\t", texts.at(-1) ?? "", progress);
  return pieces;
}

test("a text is written word by word, and ends as if written at once", () => {
  assert.deepEqual(written("a", "a cat on", "a cat on a ma", "a cat on a mat"), [
    "x\t",
    "a cat",
    " on a",
    " mat",
    "\n",
  ]);
  assert.deepEqual(written("whole"), ["x\t", "whole", "\n"]);
  assert.deepEqual(written("", ""), ["x\t", "\n"]);
});

test("words that later ids change are not written before; control characters never", () => {
  assert.deepEqual(written("it '", "it's", "it's red"), ["x\t", "it", "'s red", "\n"]);
  assert.equal(written("a \ufffd", "a \u732b b", "a \u732b b").join(""), "x\ta \u732b b\n");
  assert.equal(
    written("one\ntwo\n", "one\ntwo\n\u001b[31m three", "one\ntwo\n\u001b[31m three").join(""),
    "x\tone two [31m three\n",
  );
});

test("a text that changed all the same is written anew, and a line that is given up ends", () => {
  assert.equal(written("one two three", "other").join(""), "x\tone two\nx\tother\n");
  const pieces: string[] = [];
  const line = new StreamedLine((text) => pieces.push(text));
  line.abandon();
  line.show("x\t", "one two", progress);
  line.abandon();
  line.finish("y\t", "three", progress);
  assert.equal(pieces.join(""), "x\tone\ny\tthree\n");
});
