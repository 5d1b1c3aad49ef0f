// What `classify` must print of a CLIP fixture's pictures, by what transformers answers.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { packageRoot } from "../../src/gpu/package-root.ts";
import { argumentOf, images, runCli } from "./run-cli.ts";

export const clip = (name: string): string => join(packageRoot, "test", "fixtures", "clip", name);

export interface ClipCases {
  readonly logit_scale: number;
  readonly pictures: readonly string[];
  readonly texts: readonly { readonly text: string }[];
  readonly logits_per_image: readonly (readonly number[])[];
  readonly f16: { readonly logits_per_image: readonly (readonly number[])[] };
}

export function clipCases(name: string): ClipCases {
  return JSON.parse(readFileSync(join(clip(name), "expected.json"), "utf8"));
}

/** JSON lines of a command's output. */
export function linesOf(stdout: string): Record<string, unknown>[] {
  return stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
}

/**
 * Classify a picture by all texts of its fixture, and compare every line.
 * @param stored the type that `dtype` comes to
 */
export async function compareClassified(
  name: string,
  picture: string,
  dtype: string,
  stored: "f32" | "f16",
): Promise<void> {
  const cases = clipCases(name);
  const image = join(images, picture);
  const labels = cases.texts.map(({ text }) => argumentOf(text));
  const args = ["classify", image, ...labels, "--model", clip(name), "--dtype", dtype, "--format", "jsonl"];
  const { status, stdout, stderr } = await runCli(args);
  assert.equal(status, 0, stderr);
  const lines = linesOf(stdout);
  assert.deepEqual(
    lines.map((line) => [Object.keys(line), line.image, line.label]),
    labels.map((label) => [["image", "label", "logit", "probability"], image, label]),
  );
  const at = cases.pictures.indexOf(picture);
  const wanted = (stored === "f16" ? cases.f16 : cases).logits_per_image[at] ?? assert.fail(picture);
  const total = wanted.reduce((sum, logit) => sum + Math.exp(logit - Math.max(...wanted)), 0);
  const most = (stored === "f16" ? 2e-3 : 2e-5) * cases.logit_scale;
  for (const [i, { logit, probability }] of lines.entries()) {
    const expected = wanted[i] ?? Number.NaN;
    assert.ok(Math.abs(Number(logit) - expected) <= most, `${labels[i]}: logit ${logit} for ${expected}`);
    const share = Math.exp(expected - Math.max(...wanted)) / total;
    assert.ok(Math.abs(Number(probability) - share) <= most, `${labels[i]}: probability ${probability} for ${share}`);
  }
}
