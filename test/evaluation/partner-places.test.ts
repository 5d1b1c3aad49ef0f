import assert from "node:assert/strict";
import { test } from "node:test";
import { firstPlaces, type PartnerPlaces, partnerPlaces, reranked } from "../../evaluation/partner-places.ts";
import { retrievalReport } from "../../evaluation/retrieval-report.ts";
import { isAllEqual, reportLines } from "../../evaluation/set-report.ts";

test("the first of each search, and where the partner of the same number is", () => {
  const scores = [
    [0.9, 0.5, 0.1],
    [0.8, 0.7, 0.2],
    [0.3, 0.2, 0.1],
  ];
  const found = firstPlaces(3, (one, other) => scores[one]?.[other] ?? Number.NaN);
  assert.deepEqual(
    found.map((row) => row.map(({ place }) => place)),
    [
      [0, 1, 2],
      [0, 1, 2],
      [0, 1, 2],
    ],
  );
  // matching says the contrary of what the cosines say
  const places = partnerPlaces(found, (one, other) => -(scores[one]?.[other] ?? Number.NaN));
  assert.deepEqual(places, { itc: [1, 2, 3], itm: [3, 2, 1] });
});

test("what is not among the first is not found, and matching cannot find it", () => {
  const count = reranked + 2;
  const found = firstPlaces(count, (_, other) => other);
  assert.equal(found[0]?.length, reranked);
  const { itc, itm } = partnerPlaces(found, (one, other) => (one === other ? 1 : 0));
  assert.deepEqual(itc.slice(0, 4), [0, 0, reranked, reranked - 1]);
  assert.deepEqual(itm.slice(0, 4), [0, 0, 1, 1]);
});

const ours: PartnerPlaces = {
  textToImage: { itc: [1, 2, 6, 0], itm: [1, 1, 1, 0] },
  imageToText: { itc: [1, 1, 1, 1], itm: [1, 1, 1, 5] },
};

test("recalls of both directions beside blindness and the reference, and places compared one by one", () => {
  const reference = { ...ours, textToImage: { ...ours.textToImage, itc: [2, 1, 6, 0] } };
  const report = retrievalReport(ours, reference);
  assert.deepEqual(
    report.figures.map(({ name, ours: { right }, reference: theirs }) => [name, right, theirs?.right]),
    [
      ["picture of a caption, R@1, ITC", 1, 1],
      ["picture of a caption, R@5, ITC", 2, 2],
      ["picture of a caption, R@1, re-ranked by ITM", 3, 3],
      ["picture of a caption, R@5, re-ranked by ITM", 3, 3],
      ["caption of a picture, R@1, ITC", 4, 4],
      ["caption of a picture, R@5, ITC", 4, 4],
      ["caption of a picture, R@1, re-ranked by ITM", 3, 3],
      ["caption of a picture, R@5, re-ranked by ITM", 4, 4],
    ],
  );
  assert.deepEqual(report.figures[1]?.blind, { right: 4, of: 4 });
  assert.equal(report.equalities?.[0]?.equal, 2);
  assert.equal(isAllEqual(report), false);
  assert.match(reportLines(report, "").at(-1) ?? "", /^ {2}2 of 4 places \(picture of a caption, ITC\) and 4 of 4/);
  assert.equal(isAllEqual(retrievalReport(ours, ours)), true);
  assert.equal(isAllEqual(retrievalReport(ours, null)), false);
});
