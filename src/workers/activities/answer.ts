// The activities of one image at once. The image goes through the same functions as a batch; a mistake throws.

import { Context } from "@temporalio/activity";
import { ApplicationFailure } from "@temporalio/common";
import type { Stage } from "../../messages/job.ts";
import type { RowOptions } from "../../stages.ts";
import type {
  AnswerActivities,
  EncodeOneInput,
  GenerateOneInput,
  PromptRef,
  QueryOneInput,
} from "../../workflows/stage-activities.ts";
import { withHeartbeats } from "./heartbeats.ts";
import { encodeImage, queryFeatures } from "./make-prompts.ts";
import { generateText, instructionOf } from "./make-text.ts";
import { itemError } from "./mistakes.ts";
import type { Serving } from "./serving.ts";

/**
 * Run one stage of one image with the row options of interactive work, which is served first at every submit.
 * @throws ApplicationFailure, not retried, for what would be an item's failure in a batch
 */
async function atOnce<T>(serving: Serving, stage: Stage, work: (row: RowOptions) => Promise<T>): Promise<T> {
  const { cancellationSignal: signal, info } = Context.current();
  try {
    return await serving.metrics.row(stage, () =>
      withHeartbeats(
        () => null,
        () => work({ priority: "interactive", signal }),
      ),
    );
  } catch (error) {
    signal.throwIfAborted();
    const { type, message } = itemError(error, info.attempt);
    serving.metrics.itemFailed(stage, type);
    throw ApplicationFailure.create({
      type,
      message,
      nonRetryable: true,
      ...(error instanceof Error ? { cause: error } : {}),
    });
  }
}

export async function encodeOne(serving: Serving, input: EncodeOneInput): Promise<PromptRef> {
  const { image: uri, overwrite, asked } = input;
  const { made, ...keys } = await atOnce(serving, "encode", async (row) => {
    const instruction = instructionOf(serving, asked, null);
    return encodeImage(serving, { uri, overwrite, topology: asked.topology, instruction }, row);
  });
  serving.metrics.item("encode", made ? "made" : "reused");
  return keys;
}

export async function queryOne(serving: Serving, input: QueryOneInput): ReturnType<AnswerActivities["queryOne"]> {
  const { prompt, features } = input.encoded;
  if (features === undefined) return input.encoded;
  const outcome = await atOnce(serving, "query", async (row) => {
    const instruction = instructionOf(serving, input.asked, null);
    return queryFeatures(serving, { prompt, features }, { instruction, overwrite: input.overwrite }, row);
  });
  if ("missing" in outcome) return outcome;
  serving.metrics.item("query", outcome.made ? "made" : "reused");
  return input.encoded;
}

export async function generateOne(
  serving: Serving,
  input: GenerateOneInput,
): ReturnType<AnswerActivities["generateOne"]> {
  const generated = await atOnce(serving, "generate", (row) => generateText(serving, input.asked, null, input, row));
  if (!("missing" in generated)) serving.metrics.item("generate", "made");
  return generated;
}
