// What another service needs to ask one question about one image. This file imports nothing: copy it, or import it.
//
//     await client.workflow.execute(answerWorkflow, { taskQueue: answerQueue, workflowId, args: [input] })
//     await executeChild(answerWorkflow, { taskQueue: answerQueue, args: [input] })

/** Name of the workflow. */
export const answerWorkflow = "answer";

/** Its task queue. */
export const answerQueue = "jobs";

/** Input of `answer`. Small: the image is named, never carried. */
export interface AnswerInput {
  /** URI of the image, below the roots that the workers may read. */
  readonly image: string;
  /** The question, wrapped as the model wants it. Without question and prompt the image is captioned. */
  readonly question?: string;
  /**
   * What was said about this image before the question, the oldest first; it goes in front of the question as `chat` has it,
   * and must fit the model.
   */
  readonly history?: readonly { readonly question: string; readonly answer: string }[];
  /** Text for the language model, verbatim. Not together with `question`. */
  readonly prompt?: string;
  /** Which checkpoint; all but `ref` names the queues of the workers that have it. A worker logs them at start. */
  readonly model: {
    readonly ref: string;
    readonly digest: string;
    readonly dtype: "f32" | "f16" | "int8" | "int4";
    /** How those workers run it; left out: as the checkpoint is. */
    readonly settings?: {
      readonly imageSize?: number | undefined;
      readonly behaviour?: "huggingface" | "lavis" | undefined;
    };
  };
  /** fused (default): ViT and Q-Former are one stage. split: workers with the stage `query` are there. */
  readonly topology?: "fused" | "split";
  /** Names and defaults of Hugging Face's generate(). */
  readonly generation?: {
    readonly maxNewTokens?: number;
    readonly minNewTokens?: number;
    readonly numBeams?: number;
    readonly lengthPenalty?: number;
    readonly repetitionPenalty?: number;
    readonly repetitionPenaltyScope?: "all" | "new";
    readonly doSample?: boolean;
    readonly temperature?: number;
    readonly topK?: number;
    readonly topP?: number;
    /** The same seed draws the same text for an image and a question. */
    readonly seed?: number;
    readonly stopStrings?: readonly string[];
  };
}

/** Result of `answer`. A failure has the mistake's class as its type, e.g. ImageError, PathError, PromptStoreError. */
export interface AnswerResult {
  readonly image: string;
  readonly question?: string;
  readonly text: string;
  readonly token_ids: readonly number[];
}
