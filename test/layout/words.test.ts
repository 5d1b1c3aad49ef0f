// What no file of the project may say: this or that machine's paths, hosts of package mirrors, papers that a reader of
// the repository does not have.

import assert from "node:assert/strict";
import { test } from "node:test";
import { readProjectFile, textFiles } from "./project-files.ts";

/** Spelled so that this file does not find itself. */
const slash = "/";
const forbidden: readonly (readonly [RegExp, string])[] = [
  [new RegExp(`(^|[\\s"'\`(=:])${slash}work${slash}`, "m"), "a path of one machine"],
  [new RegExp(`\\.\\.${slash}shared\\b`), "a folder that is not in the repository"],
  [
    new RegExp(`${slash}opt${slash}bf\\b|${slash}root${slash}go\\b|${slash}home${slash}\\w+${slash}`),
    "a path of one machine",
  ],
  [/\b(?:design|style)\.md\b|\bdesign section \d/i, "a paper that is not in the repository; name ARCHITECTURE.md"],
  [/\bfacts\/\w+\.md\b/, "a paper that is not in the repository"],
  [
    /https?:\/\/[^\s"'`)]*(?:registry|mirror|artifactory|nexus|pypi|goproxy|proxy\.golang|deb\.debian|archive\.ubuntu)/i,
    "a package host",
  ],
  [/\bregistry\.npmjs\b|\bproxy\.golang\b|\bdeb\.debian\.org\b|\bfiles\.pythonhosted\b/i, "a package host"],
  [new RegExp(`\\b(?:claude|anthropic|chat${""}gpt|copilot)\\b`, "i"), "a tool that wrote it"],
];

/** Problems of one text, each with its line number. */
export function problemsIn(path: string, text: string): string[] {
  return text
    .split("\n")
    .flatMap((line, i) =>
      forbidden
        .filter(([pattern]) => pattern.test(line))
        .map(([, why]) => `${path}:${i + 1}: ${why}: ${line.trim().slice(0, 120)}`),
    );
}

test("no file names a machine's paths, a package host or a paper that is not here", () => {
  const problems = textFiles()
    .filter((path) => path !== "test/layout/words.test.ts")
    .flatMap((path) => problemsIn(path, readProjectFile(path)));
  assert.deepEqual(problems, []);
});

test("the check of words sees what it must refuse", () => {
  for (const line of [
    `read ${slash}work${slash}main`,
    `see ..${slash}shared`,
    `as the design${""}.md says`,
    `https:${slash}${slash}registry.example.org/x`,
    `${slash}root${slash}go/bin`,
  ]) {
    assert.equal(problemsIn("x", line).length >= 1, true, line);
  }
  assert.deepEqual(problemsIn("x", "src/workers/worker.ts ./work/x"), []);
});

test("the lock file names no host", () => {
  assert.doesNotMatch(
    readProjectFile("package-lock.json"),
    /"resolved"|https?:\/\/(?!opencollective|github|www\.|tidelift|feross|paypal|ko-fi|liberapay|dotenvx|polar)/,
  );
});
