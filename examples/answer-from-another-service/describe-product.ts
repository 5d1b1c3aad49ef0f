// A workflow of some other service: what a shop wants to know about a product's picture.

import { ApplicationFailure, ChildWorkflowFailure, executeChild, workflowInfo } from "@temporalio/workflow";
import { type AnswerInput, type AnswerResult, answerQueue, answerWorkflow } from "../../src/workflows/answer-types.ts";

export interface ProductPicture {
  /** URI of the picture, below the roots of BlipFleet's workers. */
  readonly image: string;
  readonly model: AnswerInput["model"];
}

/** Answers by question; or why the picture is of no use. */
export type ProductDescription = { readonly answers: Readonly<Record<string, string>> } | { readonly unusable: string };

const questions = ["what is it?", "what color is it?", "how many are there?"];

/** Ask all questions at the same time; the image is encoded once. */
export async function describeProduct({ image, model }: ProductPicture): Promise<ProductDescription> {
  const { workflowId } = workflowInfo();
  try {
    const results = await Promise.all(
      questions.map((question, i) =>
        executeChild<(input: AnswerInput) => Promise<AnswerResult>>(answerWorkflow, {
          taskQueue: answerQueue,
          workflowId: `${workflowId}/question-${i}`,
          args: [{ image, question, model }],
          priority: { priorityKey: 1 },
        }),
      ),
    );
    return { answers: Object.fromEntries(results.map(({ question, text }) => [question, text])) };
  } catch (error) {
    const mistake = mistakeOf(error);
    if (mistake?.type === "ImageError" || mistake?.type === "PathError") return { unusable: mistake.message };
    throw error;
  }
}

/** The failure inside: child workflow, its activity, and then what the worker threw. */
function mistakeOf(error: unknown): ApplicationFailure | undefined {
  if (!(error instanceof ChildWorkflowFailure)) return undefined;
  for (let cause = error.cause; cause !== undefined; cause = cause.cause as Error | undefined) {
    if (cause instanceof ApplicationFailure) return cause;
  }
  return undefined;
}
