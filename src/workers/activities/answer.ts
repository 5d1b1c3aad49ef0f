// The activities of one image at once. The image goes through the same functions as a batch; a mistake throws.

import { Context } from "@temporalio/activity";
import type {
  AnswerActivities,
  EncodeOneInput,
  GenerateOneInput,
  PromptRef,
  QueryOneInput,
} from "../../workflows/stage-activities.ts";
import { withHeartbeats } from "./heartbeats.ts";
import { encodeImage, queryFeatures } from "./make-prompts.ts";
import { generateText } from "./make-text.ts";
import type { Serving } from "./serving.ts";

/** The row options of interactive work: served first at every submit. */
function now() {
  return { priority: "interactive" as const, signal: Context.current().cancellationSignal };
}

export async function encodeOne(serving: Serving, input: EncodeOneInput): Promise<PromptRef> {
  const { image: uri, overwrite, asked } = input;
  const { made, ...keys } = await serving.metrics.row("encode", () =>
    withHeartbeats(
      () => null,
      () => encodeImage(serving, { uri, overwrite, topology: asked.topology }, now()),
    ),
  );
  serving.metrics.item("encode", made ? "made" : "reused");
  return keys;
}

export async function queryOne(serving: Serving, input: QueryOneInput): ReturnType<AnswerActivities["queryOne"]> {
  const { prompt, features } = input.encoded;
  if (features === undefined) return { prompt };
  const outcome = await serving.metrics.row("query", () =>
    withHeartbeats(
      () => null,
      () => queryFeatures(serving, { prompt, features }, input.overwrite, now()),
    ),
  );
  if ("missing" in outcome) return outcome;
  serving.metrics.item("query", outcome.made ? "made" : "reused");
  return { prompt, features };
}

export async function generateOne(
  serving: Serving,
  input: GenerateOneInput,
): ReturnType<AnswerActivities["generateOne"]> {
  const generated = await serving.metrics.row("generate", () =>
    withHeartbeats(
      () => null,
      () => generateText(serving, input.asked, null, input.prompt, now()),
    ),
  );
  if (!("missing" in generated)) serving.metrics.item("generate", "made");
  return generated;
}
