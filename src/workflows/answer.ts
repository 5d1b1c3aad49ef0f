// One question about one image, at once: its own queues, its own slots, first at every submit of the GPU.

import { ApplicationFailure } from "@temporalio/workflow";
import type { Asked, Missing } from "../messages/job.ts";
import type { AnswerInput, AnswerResult } from "./answer-types.ts";
import { type AnswerActivities, answerActivities, type PromptRef } from "./stage-activities.ts";

/** Times that a missing prompt is encoded again. */
const mostRounds = 3;

/** Encode (or find) the image's prompt, then generate. Starts from any client, or as a child of any workflow. */
export async function answer(input: AnswerInput): Promise<AnswerResult> {
  const asked = askedBy(input);
  const stages = answerActivities(asked.model, { priorityKey: 1, fairnessKey: "answer" });
  let damaged = false;
  for (let round = 0; round <= mostRounds; round += 1) {
    const reply = await oneRound(stages, asked, input.image, damaged);
    if (!("missing" in reply)) {
      return {
        image: input.image,
        ...(input.question === undefined ? {} : { question: input.question }),
        text: reply.text,
        token_ids: reply.token_ids,
      };
    }
    damaged = reply.missing === "damaged";
  }
  throw ApplicationFailure.nonRetryable(
    `answer: expected the prompt of ${input.image} in the prompt store, got none after ${mostRounds} further encodes; ` +
      "raise the stream's max_bytes or max_age",
    "PromptStoreError",
  );
}

async function oneRound(stages: AnswerActivities, asked: Asked, image: string, overwrite: boolean) {
  const encoded = await stages.encodeOne({ asked, image, overwrite });
  const prompt = asked.topology === "fused" ? encoded : await stages.queryOne({ asked, encoded, overwrite });
  if (!isRef(prompt)) return prompt;
  const { image: digest } = prompt;
  return stages.generateOne({ asked, prompt: prompt.prompt, ...(digest === undefined ? {} : { image: digest }) });
}

function isRef(found: PromptRef | { readonly missing: keyof Missing }): found is PromptRef {
  return "prompt" in found;
}

function askedBy(input: AnswerInput): Asked {
  // Any client may start this workflow; what is no input must fail it, not its task for ever.
  const { image, model } = input ?? {};
  if (typeof image !== "string" || typeof model?.digest !== "string" || !dtypes.includes(model.dtype)) {
    throw ApplicationFailure.nonRetryable(
      `answer: expected { image, model: { ref, digest, dtype } }, got ${JSON.stringify(input)?.slice(0, 200)}`,
      "AnswerInputError",
    );
  }
  if (input.question !== undefined && input.prompt !== undefined) {
    throw ApplicationFailure.nonRetryable(
      "answer: expected a question or a prompt, got both; leave one out",
      "AnswerInputError",
    );
  }
  const turns = input.history ?? [];
  const areTurns = Array.isArray(turns) && turns.every((turn) => isText(turn?.question) && isText(turn?.answer));
  if (!areTurns || (turns.length > 0 && input.question === undefined)) {
    throw ApplicationFailure.nonRetryable(
      `answer: expected a history of { question, answer } and a question behind it, got ${JSON.stringify(turns).slice(0, 200)}`,
      "AnswerInputError",
    );
  }
  return {
    task: input.question === undefined ? "caption" : "ask",
    model: input.model,
    topology: input.topology ?? "fused",
    prompt: input.question ?? input.prompt ?? null,
    ...(turns.length > 0 && { turns }),
    generation: input.generation ?? {},
  };
}

const dtypes: readonly AnswerInput["model"]["dtype"][] = ["f32", "f16", "int8", "int4"];

function isText(value: unknown): value is string {
  return typeof value === "string";
}
