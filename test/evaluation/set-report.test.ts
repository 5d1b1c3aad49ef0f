import assert from "node:assert/strict";
import { test } from "node:test";
import type { SceneItem } from "../../evaluation/scene-sets.ts";
import { isAllEqual, reportLines, reportOf, type SetResult } from "../../evaluation/set-report.ts";

const words = { kinds: { dog: "dogs", cat: "cats" }, colours: ["red", "blue"], numbers: ["none", "one", "two"] };
const blind = {
  caption: "a dog on a red background",
  answers: { "how many dogs are there?": "one" },
  kinds: { count: "two", exist: "yes" },
};
const count = (answer: string) => ({ kind: "count", question: "how many dogs are there?", answer });
const items: readonly SceneItem[] = [
  {
    id: "0",
    image: "0.png",
    caption: "a dog on a red background",
    facts: { kinds: { dog: 1 }, colour: "red" },
    questions: [count("one"), { kind: "exist", question: "is there a cat?", answer: "no" }],
  },
  {
    id: "1",
    image: "1.png",
    caption: "two cats on a blue background",
    facts: { kinds: { cat: 2 }, colour: "blue" },
    questions: [{ ...count("two"), question: "how many cats do you see?" }],
  },
];

/** Ids stand for these texts. */
const texts = ["a dog on a red background", "two cats on a blue background", "one", "two", "no", "yes"];
const textOf = (ids: readonly number[]) => texts[ids[0] ?? -1] ?? "";
const said = (id: number) => ({ text: textOf([id]), tokenIds: [id, 202] });
const ids = (id: number) => [id, 202];

const result: SetResult = {
  set: "test-comb",
  items,
  predictions: [
    { caption: said(0), answers: [said(2), said(5)] },
    { caption: said(1), answers: [said(3)] },
  ],
  reference: [
    { caption: ids(0), answers: [ids(2), ids(4)] },
    { caption: ids(0), answers: [ids(3)] },
  ],
};

test("figures stand beside blindness and the reference, and ids are compared one by one", () => {
  const report = reportOf(result, words, blind, textOf);
  const figures = report.figures.map(({ name, ours, blind, reference }) => [
    name,
    ...[ours, blind, reference].map((share) => share && `${share.right}/${share.of}`),
  ]);
  assert.deepEqual(figures, [
    ["caption all right", "2/2", "1/2", "1/2"],
    ["kinds named", "2/2", "1/2", "1/2"],
    ["counts of named kinds", "2/2", "1/1", "1/1"],
    ["colour", "2/2", "1/2", "1/2"],
    // the second question is none that training asks: its kind's commonest answer stands in
    ["answer: count", "2/2", "2/2", "2/2"],
    ["answer: exist", "0/1", "0/1", "1/1"],
    ["answers, all kinds", "2/3", "2/3", "3/3"],
  ]);
  assert.deepEqual(report.equalities, [
    { what: "captions", equal: 1, of: 2 },
    { what: "answers", equal: 2, of: 3 },
  ]);
  assert.equal(isAllEqual(report), false);
  const lines = reportLines(report, "unseen");
  assert.equal(lines[0], "test-comb, 2 scenes      of     ours    blind  reference");
  assert.equal(lines[1], "  caption all right       2  100.0 %   50.0 %     50.0 %");
  assert.equal(lines.at(-1), "  1 of 2 captions and 2 of 3 answers equal the reference's");
});

test("ids are equal only to their very end", () => {
  const predictions = [
    { caption: { text: texts[0] ?? "", tokenIds: [0] }, answers: [] },
    { caption: said(1), answers: [] },
  ];
  const reference = [0, 1].map((id) => ({ caption: ids(id), answers: [] }));
  const report = reportOf({ ...result, predictions, reference }, words, blind, textOf);
  assert.deepEqual(report.equalities, [{ what: "captions", equal: 1, of: 2 }]);
});

test("a set whose questions are not asked has captions only", () => {
  const predictions = result.predictions.map(({ caption }) => ({ caption, answers: [] }));
  const reference = [0, 1].map((id) => ({ caption: ids(id), answers: [] }));
  const report = reportOf({ ...result, predictions, reference }, words, blind, textOf);
  assert.equal(report.figures.length, 4);
  assert.equal(isAllEqual(report), true);
  assert.match(reportLines(report, "unseen").at(-1) ?? "", /^ {2}2 of 2 captions equal the reference's$/);
});

test("without a reference nothing counts as equal", () => {
  const report = reportOf({ ...result, reference: null }, words, blind, textOf);
  assert.equal(isAllEqual(report), false);
  assert.equal(
    report.figures.every(({ reference }) => reference === null),
    true,
  );
  assert.equal(reportLines(report, "unseen").at(-1), "  not compared with the reference");
});
