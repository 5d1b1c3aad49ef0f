import assert from "node:assert/strict";
import { test } from "node:test";
import { captionFacts, type Words } from "../../evaluation/caption-facts.ts";

const words: Words = {
  kinds: { apple: "apples", dog: "dogs", fish: "fish", butterfly: "butterflies", bus: "buses" },
  colours: ["white", "red", "orange", "blue"],
  numbers: ["none", "one", "two", "three", "four", "five", "six", "seven"],
};

/** caption -> kinds with counts, colour */
const cases: readonly (readonly [string, Record<string, number | null>, string | null])[] = [
  ["three apples and a dog on a blue background", { apple: 3, dog: 1 }, "blue"],
  ["two buses, two fish and an apple on an orange background", { bus: 2, fish: 2, apple: 1 }, "orange"],
  ["a fish on a white background", { fish: 1 }, "white"],
  // other words and another order say the same
  ["There are Seven Butterflies on a RED background", { butterfly: 7 }, "red"],
  ["an orange picture of one dog and five fish", { dog: 1, fish: 5 }, "orange"],
  ["a blue background with four dogs", { dog: 4 }, "blue"],
  // the number is what counts, whatever the noun's form
  ["two dog on red", { dog: 2 }, "red"],
  ["a dogs on red", { dog: 1 }, "red"],
  // kinds without a number, and with two
  ["dogs and apples on white", { dog: null, apple: null }, "white"],
  ["two dogs and a dog on a white background", { dog: null }, "white"],
  ["none dogs on a white background", { dog: null }, "white"],
  ["two red dogs on a red background", { dog: null }, "red"],
  // colours: none, or several
  ["three dogs", { dog: 3 }, null],
  ["three dogs on a red blue background", { dog: 3 }, null],
  ["three dogs on a red red background", { dog: 3 }, "red"],
  // parts of words are no words
  ["three hotdogs on a redder background", {}, null],
  ["", {}, null],
];

for (const [caption, kinds, colour] of cases) {
  test(`"${caption}"`, () => {
    const facts = captionFacts(caption, words);
    assert.deepEqual(Object.fromEntries(facts.kinds), kinds);
    assert.equal(facts.colour, colour);
  });
}
