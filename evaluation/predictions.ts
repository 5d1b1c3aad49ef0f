// What our kernels say of the scenes: the data flow of `caption` and `ask`, one encode per image for all that is asked.

import { type Asked, type LocalItem, runLocally } from "../src/cli/local-run.ts";
import { type Dtype, defaultGeneration } from "../src/stages.ts";
import { EvaluationError } from "./errors.ts";
import type { SceneItem } from "./scene-sets.ts";

/** Most new ids of a caption and of an answer; as in training/reference_predictions.py. */
const captionTokens = 30;
const answerTokens = 10;

export interface Said {
  readonly text: string;
  readonly tokenIds: readonly number[];
}

export interface Prediction {
  readonly caption: Said;
  /** In the order of the scene's questions; empty where none were asked. */
  readonly answers: readonly Said[];
}

/** A scene, and whether its questions are asked. */
export interface Subject {
  readonly item: SceneItem;
  readonly answered: boolean;
}

/**
 * Greedy captions and answers, in the order of the scenes. Progress goes to stderr.
 * @throws EvaluationError for the first text that fails, and what keeps a model from being loaded
 */
export async function predict(model: string, dtype: Dtype, subjects: readonly Subject[]): Promise<Prediction[]> {
  const items: LocalItem[] = subjects.map(({ item, answered }) => ({
    image: item.image,
    asked: [captionOf, ...(answered ? item.questions.map(({ question }) => answerTo(question)) : [])],
  }));
  const said: Said[] = [];
  await runLocally({ items, model: { model, dtype }, noun: "texts" }, (result) => {
    if ("error" in result) throw new EvaluationError(`${result.image}: ${result.error.type}: ${result.error.message}`);
    said.push({ text: result.text, tokenIds: result.tokenIds });
  });
  let at = 0;
  return items.map(({ asked }) => {
    const [caption, ...answers] = said.slice(at, at + asked.length);
    at += asked.length;
    if (caption === undefined) throw new RangeError(`predictions: expected ${at} texts, got ${said.length}`);
    return { caption, answers };
  });
}

const captionOf: Asked = {
  task: "caption",
  text: null,
  generation: { ...defaultGeneration, maxNewTokens: captionTokens },
};

function answerTo(question: string): Asked {
  return { task: "ask", text: question, generation: { ...defaultGeneration, maxNewTokens: answerTokens } };
}
