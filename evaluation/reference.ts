// What transformers answered, recorded by training/reference_predictions.py: token ids, a line per scene.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { EvaluationError, OtherScenesError } from "./errors.ts";
import type { SceneSet } from "./scene-sets.ts";

const header = z.object({ set_digest: z.string(), model_digest: z.string(), answers: z.boolean() });
const row = z.array(z.array(z.number()));

/** Token ids of a scene. */
export interface ReferenceIds {
  readonly caption: readonly number[];
  /** In the order of the scene's questions; empty where the set's were not asked. */
  readonly answers: readonly (readonly number[])[];
}

/**
 * The reference's ids for each scene of a set.
 * @param models the folder of the demo models; @param modelDigest of the checkpoint that is compared with it
 * @throws EvaluationError when they are missing or are about another checkpoint, OtherScenesError
 */
export async function readReference(models: string, set: SceneSet, modelDigest: string): Promise<ReferenceIds[]> {
  const file = join(models, "reference", `${set.name}.jsonl`);
  const text = await readFile(file, "utf8").catch(() => null);
  if (text === null)
    throw new EvaluationError(`${file}: expected transformers' recorded ids, got no such file; restore it with git`);
  const [first = "", ...lines] = text.trimEnd().split("\n");
  const stated = header.parse(JSON.parse(first));
  if (stated.model_digest !== modelDigest) {
    throw new EvaluationError(
      `${file}: expected ids of the checkpoint ${modelDigest.slice(0, 12)}, got those of ${stated.model_digest.slice(0, 12)}; ` +
        "record them again with training/reference_predictions.py",
    );
  }
  if (stated.set_digest !== set.digest) {
    throw new OtherScenesError(
      `${set.name}: expected the very scenes that transformers was asked about (${stated.set_digest.slice(0, 12)}), got others ` +
        `(${set.digest.slice(0, 12)}); another release of the font draws other pictures, so use that of Debian 12 ` +
        "(fonts-noto-color-emoji; BLIPFLEET_EMOJI_FONT names its file)",
    );
  }
  if (lines.length !== set.items.length)
    throw new EvaluationError(`${file}: expected ${set.items.length} scenes, got ${lines.length}`);
  return lines.map((line, i) => {
    const [caption, ...answers] = row.parse(JSON.parse(line));
    const questions = stated.answers ? (set.items[i]?.questions.length ?? 0) : 0;
    if (caption === undefined || answers.length !== questions) {
      throw new EvaluationError(
        `${file}: expected a caption and ${questions} answers of scene ${i}, got ${answers.length} answers`,
      );
    }
    return { caption, answers };
  });
}
