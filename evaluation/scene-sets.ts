// The rendered sets as training/render_sets.py wrote them: scenes, what is true of them, what is asked about them.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import type { Words } from "./caption-facts.ts";

/** Sets of captions and questions; `answered`: transformers was asked the questions, too. */
export const sceneSets = {
  "test-comb": { answered: true, about: "combinations of kind, count and colour that training never shows" },
  "test-iid": { answered: true, about: "combinations that training shows" },
  "test-comb-hard": { answered: false, about: "unseen combinations, up to three kinds and seven objects" },
  "test-iid-hard": { answered: false, about: "seen combinations, up to three kinds and seven objects" },
} as const;

export type SceneSetName = keyof typeof sceneSets;

/** A set of scenes with a caption each that no other has, for search. */
export const retrievalSet = "retrieval";

const sceneItem = z.object({
  id: z.string(),
  image: z.string(),
  caption: z.string(),
  facts: z.object({ kinds: z.record(z.string(), z.number()), colour: z.string() }),
  questions: z.array(z.object({ kind: z.string(), question: z.string(), answer: z.string() })),
});

/** One scene; `image` is a full path. */
export type SceneItem = z.infer<typeof sceneItem>;

export interface SceneSet {
  readonly name: SceneSetName | typeof retrievalSet;
  /** Over questions and pixels: equal digests, equal scenes. */
  readonly digest: string;
  readonly items: readonly SceneItem[];
}

/** @param folder that holds the sets */
export async function readSceneSet(folder: string, name: SceneSet["name"]): Promise<SceneSet> {
  const { digest } = z.object({ digest: z.string() }).parse(await readJson(join(folder, name, "set.json")));
  const lines = (await readFile(join(folder, name, "items.jsonl"), "utf8")).trimEnd().split("\n");
  const items = lines.map((line) => {
    const item = sceneItem.parse(JSON.parse(line));
    return { ...item, image: join(folder, name, item.image) };
  });
  return { name, digest, items };
}

const words = z.object({
  kinds: z.record(z.string(), z.string()),
  colours: z.array(z.string()),
  numbers: z.array(z.string()),
});

export async function readWords(folder: string): Promise<Words> {
  return words.parse(await readJson(join(folder, "words.json")));
}

const blindAnswers = z.object({
  caption: z.string(),
  answers: z.record(z.string(), z.string()),
  kinds: z.record(z.string(), z.string()),
});

/** What can be answered without looking. */
export type BlindAnswers = z.infer<typeof blindAnswers>;

export async function readBlindAnswers(folder: string): Promise<BlindAnswers> {
  return blindAnswers.parse(await readJson(join(folder, "blind.json")));
}

/** The commonest answer to this very question, or to its kind where training never asks it. */
export function blindAnswer({ answers, kinds }: BlindAnswers, question: string, kind: string): string {
  return answers[question] ?? kinds[kind] ?? "";
}

async function readJson(file: string): Promise<unknown> {
  return JSON.parse(await readFile(file, "utf8"));
}
