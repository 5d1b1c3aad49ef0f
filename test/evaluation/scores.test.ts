import assert from "node:assert/strict";
import { test } from "node:test";
import type { CaptionFacts } from "../../evaluation/caption-facts.ts";
import { answerScores, captionScores, type SceneFacts } from "../../evaluation/scores.ts";

const said = (kinds: Record<string, number | null>, colour: string | null): CaptionFacts => ({
  kinds: new Map(Object.entries(kinds)),
  colour,
});

const truths: readonly SceneFacts[] = [
  { kinds: { dog: 2, apple: 1 }, colour: "red" },
  { kinds: { bus: 3 }, colour: "white" },
  { kinds: { cat: 1, fish: 4 }, colour: "blue" },
];

test("all that is true, in any order, is all right", () => {
  const all = [said({ apple: 1, dog: 2 }, "red"), said({ bus: 3 }, "white"), said({ fish: 4, cat: 1 }, "blue")];
  assert.deepEqual(captionScores(truths, all), {
    allRight: { right: 3, of: 3 },
    kindRecall: { right: 5, of: 5 },
    countGivenKind: { right: 5, of: 5 },
    colour: { right: 3, of: 3 },
  });
});

test("each mistake costs what it concerns: counts are asked of named kinds only", () => {
  const scores = captionScores(truths, [
    said({ dog: 3 }, "red"), // a wrong count, a kind left out
    said({ bus: 3, cat: 1 }, "white"), // a kind too many
    said({ cat: 1, fish: null }, "red"), // a kind without a count, a wrong colour
  ]);
  assert.deepEqual(scores, {
    allRight: { right: 0, of: 3 },
    kindRecall: { right: 4, of: 5 },
    countGivenKind: { right: 2, of: 4 },
    colour: { right: 2, of: 3 },
  });
});

test("one mistake of any sort is enough not to be all right", () => {
  const truth = [{ kinds: { dog: 2, apple: 1 }, colour: "red" }];
  const allRight = (facts: CaptionFacts) => captionScores(truth, [facts]).allRight.right;
  assert.equal(allRight(said({ dog: 2, apple: 1 }, "red")), 1);
  assert.equal(allRight(said({ dog: 2, apple: 2 }, "red")), 0);
  assert.equal(allRight(said({ dog: 2, apple: 1 }, "blue")), 0);
  assert.equal(allRight(said({ dog: 2, apple: 1 }, null)), 0);
  assert.equal(allRight(said({ dog: 2 }, "red")), 0);
  assert.equal(allRight(said({ dog: 2, apple: 1, cat: 1 }, "red")), 0);
  assert.equal(allRight(said({ dog: 2, cat: 1 }, "red")), 0);
});

test("answers are counted by kind of question, word by word", () => {
  const asked = [
    { kind: "count", answer: "two" },
    { kind: "exist", answer: "yes" },
    { kind: "count", answer: "one" },
  ];
  assert.deepEqual(
    [...answerScores(asked, ["two", "no", "one one"])],
    [
      ["count", { right: 1, of: 2 }],
      ["exist", { right: 0, of: 1 }],
    ],
  );
});

test("too few captions or answers are a mistake of the caller, not wrong ones", () => {
  assert.throws(() => captionScores(truths, []), RangeError);
  assert.throws(() => answerScores([{ kind: "count", answer: "two" }], []), RangeError);
});
