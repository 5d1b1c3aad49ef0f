// What transformers answered: token ids, a line per scene (training/reference_predictions.py), and the places of what it
// searched (training/reference_retrieval.py).

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { EvaluationError, OtherScenesError } from "./errors.ts";
import { type PartnerPlaces, reranked } from "./partner-places.ts";
import type { SceneSet } from "./scene-sets.ts";

const origin = z.object({ set_digest: z.string(), model_digest: z.string() });
const header = origin.extend({ answers: z.boolean() });
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
  const [first = "", ...lines] = (await recorded(file)).trimEnd().split("\n");
  const stated = header.parse(JSON.parse(first));
  expectOrigin(stated, file, set, modelDigest, "training/reference_predictions.py");
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

const place = z.array(z.number());
const places = z.object({ itc: place, itm: place });
const retrieval = origin.extend({ reranked: z.number(), text_to_image: places, image_to_text: places });

/**
 * The reference's places of the partners in the retrieval set.
 * @throws as readReference
 */
export async function readPlaces(models: string, set: SceneSet, modelDigest: string): Promise<PartnerPlaces> {
  const file = join(models, "reference", `${set.name}.json`);
  const stated = retrieval.parse(JSON.parse(await recorded(file)));
  expectOrigin(stated, file, set, modelDigest, "training/reference_retrieval.py");
  if (stated.reranked !== reranked)
    throw new EvaluationError(`${file}: expected ${reranked} re-ranked of each search, got ${stated.reranked}`);
  return { textToImage: stated.text_to_image, imageToText: stated.image_to_text };
}

async function recorded(file: string): Promise<string> {
  const text = await readFile(file, "utf8").catch(() => null);
  if (text !== null) return text;
  throw new EvaluationError(`${file}: expected what transformers answered, got no such file; restore it with git`);
}

/** @throws EvaluationError when it was recorded of another checkpoint, OtherScenesError */
function expectOrigin(
  stated: z.infer<typeof origin>,
  file: string,
  set: SceneSet,
  modelDigest: string,
  script: string,
): void {
  if (stated.model_digest !== modelDigest) {
    throw new EvaluationError(
      `${file}: expected what the checkpoint ${modelDigest.slice(0, 12)} answered, got what ${stated.model_digest.slice(0, 12)} did; ` +
        `record it again with ${script}`,
    );
  }
  if (stated.set_digest !== set.digest) {
    throw new OtherScenesError(
      `${set.name}: expected the very scenes that transformers was asked about (${stated.set_digest.slice(0, 12)}), got others ` +
        `(${set.digest.slice(0, 12)}); another release of the font draws other pictures, so use that of Debian 12 ` +
        "(fonts-noto-color-emoji; BLIPFLEET_EMOJI_FONT names its file)",
    );
  }
}
