// blipfleet ask IMAGE QUESTION...

import type { Command } from "commander";
import { addGenerationOptions, type GenerationFlags, generationFrom } from "./generation-options.ts";
import type { LocalResult } from "./local-run.ts";
import {
  addFormatOption,
  addModelOptions,
  type FormatFlag,
  type ModelFlags,
  type OutputFormat,
} from "./model-options.ts";
import { oneLine, tell, writeJson, writeLine } from "./output.ts";
import type { Progress } from "./progress.ts";

type Flags = ModelFlags & FormatFlag & GenerationFlags;

export function addAskCommand(program: Command): void {
  const command = program
    .command("ask")
    .description("Answer questions about an image. Runs in this process; no server is needed.")
    .argument("<image>", "image file: JPEG, PNG, WebP, AVIF, GIF (first frame), TIFF")
    .argument("<question...>", "one or more questions; the image is encoded once for all of them");
  addModelOptions(command);
  addFormatOption(command);
  addGenerationOptions(command);
  command.addHelpText(
    "after",
    `
Output with --format jsonl, one line per question in the order given:
  {"image": PATH, "question": QUESTION, "text": ANSWER, "token_ids": [...]}
  or, in place of text and token_ids, "error": {"type", "message"}

Examples:
  blipfleet ask photo.jpg "What is in the picture?"
  blipfleet ask photo.jpg "How many dogs are there?" "What colour are they?" --format jsonl
`,
  );
  command.action(async (image: string, questions: string[], flags: Flags) => {
    const { ofEvery, runLocally } = await import("./local-run.ts");
    const generation = generationFrom(flags);
    const asked = questions.map((text) => ({ task: "ask", text, generation }) as const);
    const failures = await runLocally({ items: ofEvery([image], asked), model: flags }, (result, progress) =>
      print(result, flags.format, progress),
    );
    process.exitCode = failures > 0 ? 1 : 0;
  });
}

function print(result: LocalResult, format: OutputFormat, progress: Progress): void {
  const { image, asked: question } = result;
  if (format === "jsonl") {
    const outcome = "error" in result ? { error: result.error } : { text: result.text, token_ids: result.tokenIds };
    writeJson({ image, question, ...outcome }, progress);
  } else if ("error" in result) {
    progress.clear();
    tell(`${image}: ${oneLine(question ?? "").slice(0, 80)}: ${result.error.type}: ${result.error.message}`);
  } else {
    writeLine(`${question}\t${oneLine(result.text)}`, progress);
  }
}
