// The report of one set: every figure beside what blindness gives and beside the reference's, and how many ids are equal.

import { captionFacts, type Words } from "./caption-facts.ts";
import type { Prediction } from "./predictions.ts";
import type { ReferenceIds } from "./reference.ts";
import { type BlindAnswers, blindAnswer, type SceneItem } from "./scene-sets.ts";
import { answerScores, captionScores, type Share } from "./scores.ts";

/** One line of the table. */
export interface Figure {
  readonly name: string;
  readonly ours: Share;
  readonly blind: Share;
  /** null where nothing is recorded */
  readonly reference: Share | null;
}

/** `equal` of `of` results of one sort are the reference's: sequences of token ids, or places. */
export interface Equality {
  readonly what: string;
  readonly equal: number;
  readonly of: number;
}

export interface SetReport {
  readonly set: string;
  readonly scenes: number;
  readonly figures: readonly Figure[];
  /** null where what to compare with is missing; empty where nothing is to be compared */
  readonly equalities: readonly Equality[] | null;
}

export interface SetResult {
  readonly set: string;
  readonly items: readonly SceneItem[];
  readonly predictions: readonly Prediction[];
  /** null: no reference for these scenes */
  readonly reference: readonly ReferenceIds[] | null;
}

/** @param textOf the checkpoint's detokenizer, for the reference's ids */
export function reportOf(
  { set, items, predictions, reference }: SetResult,
  words: Words,
  blind: BlindAnswers,
  textOf: (ids: readonly number[]) => string,
): SetReport {
  const truths = items.map(({ facts }) => facts);
  const captions = (texts: readonly string[]) =>
    captionScores(
      truths,
      texts.map((text) => captionFacts(text, words)),
    );
  const ours = captions(predictions.map(({ caption }) => caption.text));
  const blindly = captions(items.map(() => blind.caption));
  const theirs = reference && captions(reference.map(({ caption }) => textOf(caption)));
  const figures = captionRows.map(
    ([key, name]): Figure => ({ name, ours: ours[key], blind: blindly[key], reference: theirs?.[key] ?? null }),
  );

  const isAsked = predictions.some(({ answers }) => answers.length > 0);
  const asked = isAsked ? items.flatMap(({ questions }) => questions) : [];
  const saidAnswers = predictions.flatMap(({ answers }) => answers);
  const theirAnswers = reference && (isAsked ? reference.flatMap(({ answers }) => answers) : []);
  const scores = answerScores(
    asked,
    saidAnswers.map(({ text }) => text),
  );
  const blindScores = answerScores(
    asked,
    asked.map(({ question, kind }) => blindAnswer(blind, question, kind)),
  );
  const theirScores = theirAnswers && answerScores(asked, theirAnswers.map(textOf));
  const kinds = [...scores].sort(([a], [b]) => (a < b ? -1 : 1));
  for (const [kind, share] of kinds) {
    const none = { right: 0, of: share.of };
    figures.push({
      name: `answer: ${kind}`,
      ours: share,
      blind: blindScores.get(kind) ?? none,
      reference: theirScores?.get(kind) ?? null,
    });
  }
  if (kinds.length > 0) {
    figures.push({
      name: "answers, all kinds",
      ours: sum(scores),
      blind: sum(blindScores),
      reference: theirScores && sum(theirScores),
    });
  }
  return {
    set,
    scenes: items.length,
    figures,
    equalities:
      reference &&
      theirAnswers &&
      [
        equality(
          "captions",
          predictions.map(({ caption }) => caption.tokenIds),
          reference.map(({ caption }) => caption),
        ),
        equality(
          "answers",
          saidAnswers.map(({ tokenIds }) => tokenIds),
          theirAnswers,
        ),
      ].filter(({ of }) => of > 0),
  };
}

const captionRows = [
  ["allRight", "caption all right"],
  ["kindRecall", "kinds named"],
  ["countGivenKind", "counts of named kinds"],
  ["colour", "colour"],
] as const;

function sum(scores: ReadonlyMap<string, Share>): Share {
  const shares = [...scores.values()];
  return { right: shares.reduce((n, { right }) => n + right, 0), of: shares.reduce((n, { of }) => n + of, 0) };
}

/** How many of `theirs` are ours, one by one. */
export function equality(
  what: string,
  ours: readonly (readonly number[])[],
  theirs: readonly (readonly number[])[],
): Equality {
  const same = theirs.filter((ids, i) => ids.join() === ours[i]?.join());
  return { what, equal: same.length, of: theirs.length };
}

/** Whether everything that can be compared is the reference's; false where that is missing. */
export function isAllEqual({ equalities }: SetReport): boolean {
  return equalities?.every(({ equal, of }) => equal === of) ?? false;
}

/** The report as lines for people. */
export function reportLines(report: SetReport, about: string): string[] {
  const cells = [
    [`${report.set}, ${report.scenes} scenes`, "of", "ours", "blind", "reference"],
    ...report.figures.map(({ name, ours, blind, reference }) => [
      `  ${name}`,
      String(ours.of),
      percent(ours),
      percent(blind),
      reference === null ? "" : percent(reference),
    ]),
  ];
  const widths = [0, 1, 2, 3, 4].map((column) => Math.max(...cells.map((row) => row[column]?.length ?? 0)));
  const table = cells.map((row) =>
    row
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0)))
      .join("  ")
      .trimEnd(),
  );
  return [...table, `  (${about})`, `  ${equalityLine(report)}`];
}

function percent({ right, of }: Share): string {
  return of === 0 ? "-" : `${((100 * right) / of).toFixed(1)} %`;
}

function equalityLine({ equalities }: SetReport): string {
  if (equalities === null) return "not compared with the reference";
  if (equalities.length === 0) return "not compared with the reference, which looked at all scenes of the set";
  const parts = equalities.map(({ what, equal, of }) => `${equal} of ${of} ${what}`);
  return `${parts.join(" and ")} equal the reference's`;
}
