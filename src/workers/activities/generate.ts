// The activity generate of a chunk: prompts and questions to texts.

import { openStore } from "../../jobs/store.ts";
import type { GenerateInput, GenerateOutcome, ItemError, PromptLine } from "../../messages/job.ts";
import type { StageRun } from "./encode.ts";
import { type Found, finishChunk } from "./finish-chunk.ts";
import { generateText } from "./make-text.ts";
import { type Placed, readPromptLines } from "./prompt-lines.ts";
import type { Serving } from "./serving.ts";

/** Texts for all items that have a prompt; the chunk's result when none is missing, or in the last round. */
export async function generate(serving: Serving, input: GenerateInput): Promise<GenerateOutcome> {
  const prompts = await readPromptLines(openStore(input.folder), input.prompts);
  return finishChunk(serving, input, { stage: "generate", object: "generate" }, (placed, run, signal) =>
    textOf(serving, run, input, placed, prompts.get(placed.position), signal),
  );
}

async function textOf(
  serving: Serving,
  run: StageRun,
  input: GenerateInput,
  { item }: Placed,
  line: PromptLine | undefined,
  signal: AbortSignal,
): Promise<Found> {
  const { asked } = input;
  const question = asked.task === "ask" ? (item.prompt ?? asked.prompt) : null;
  const named = { id: item.id, image: item.image };
  const failed = (error: ItemError) => ({
    result: { ...named, status: "failed" as const, ...(question === null ? {} : { question }), error },
  });
  if (line === undefined) return { missing: "absent" };
  if ("error" in line) return failed(line.error);
  try {
    const generated = await generateText(serving, asked, item.prompt, line, { signal });
    if (!("missing" in generated)) {
      run.count("made");
      return { result: { ...named, status: "done", ...(question === null ? {} : { question }), ...generated } };
    }
    const missing = line.missing ?? generated.missing;
    if (!input.last) return { missing };
    return failed({
      type: "PromptStoreError",
      message:
        `prompt store: expected the prompt of ${item.id}, got none (${missing}) after ${input.round} further encodes; ` +
        "raise the stream's max_bytes or max_age, or use a smaller window",
    });
  } catch (error) {
    return failed(run.itemFailed(error, signal));
  }
}
