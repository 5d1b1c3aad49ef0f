// blipfleet ask IMAGE QUESTION...

import type { Command } from "commander";
import type { RankedAnswer } from "../answer.ts";
import { type AnswersFlags, addAllScoresOption, addAnswersOptions, answersOf } from "./answer-list.ts";
import { type AttentionFlag, AttentionFolder, addAttentionOption, attentionHelp } from "./attention-folder.ts";
import { UsageError } from "./errors.ts";
import { addFramesOption, type FramesFlag } from "./frames-option.ts";
import {
  addGenerationOptions,
  type GenerationFlags,
  generationFrom,
  givenGenerationFlags,
} from "./generation-options.ts";
import type { LocalResult } from "./local-run.ts";
import {
  addFormatOption,
  addModelOptions,
  addSettingsOptions,
  type FormatFlag,
  type ModelFlags,
  type OutputFormat,
} from "./model-options.ts";
import { oneLine, tell, writeJson, writeLine } from "./output.ts";
import type { Progress } from "./progress.ts";
import { addStreamOption, type StreamedLine, type StreamFlag, streamedLine } from "./streamed-line.ts";
import { expectTextsGiven } from "./texts-given.ts";

type Flags = ModelFlags & FormatFlag & StreamFlag & AnswersFlags & AttentionFlag & FramesFlag & GenerationFlags;

export function addAskCommand(program: Command): void {
  const command = program
    .command("ask")
    .description("Answer questions about an image. Runs in this process; no server is needed.")
    .argument(
      "<image>",
      "image file: JPEG, PNG, WebP, AVIF, GIF (first frame), TIFF; with --frames also a folder of frames",
    )
    .argument("<question...>", "one or more questions; the image is encoded once for all of them");
  addModelOptions(command);
  addSettingsOptions(command);
  addFormatOption(command);
  addStreamOption(command);
  addAttentionOption(command);
  addFramesOption(command);
  addAnswersOptions(command);
  addAllScoresOption(command);
  addGenerationOptions(command);
  command.addHelpText(
    "after",
    `
Output with --format jsonl, one line per question in the order given:
  {"image": PATH, "question": QUESTION, "text": ANSWER, "token_ids": [...]}
  or, in place of text and token_ids, "error": {"type", "message"}; with --attention also "attention": PATH
With --answers the text is the likeliest line of the file, and "score" the sum of the log-probabilities of its ids and of
the id that ends a text; with --all-scores one line per answer that was compared whole.
${attentionHelp}
Examples:
  blipfleet ask photo.jpg "What is in the picture?"
  blipfleet ask photo.jpg "How many dogs are there?" "What colour are they?" --format jsonl
  blipfleet ask frames/ "What happens?" --frames 8
  blipfleet ask photo.jpg "What animal is it?" --answers animals.txt
`,
  );
  command.action(async (image: string, questions: string[], flags: Flags) => {
    expectTextsGiven("question", questions);
    const generation = generationFrom(flags);
    const line = streamedLine(flags, flags.format, generation);
    const answers = answersOf(flags, givenGenerationFlags(command));
    if (line && answers)
      throw new UsageError("--stream: expected no --answers beside it, which has no text that comes");
    if (flags.frames !== undefined && flags.attention !== undefined) {
      throw new UsageError("--frames: expected no --attention beside it, which is about one image");
    }
    const frames = flags.frames === undefined ? {} : { frames: flags.frames };
    const attention = flags.attention === undefined ? {} : { attention: new AttentionFolder(flags.attention, [image]) };
    const { ofEvery, runLocally } = await import("./local-run.ts");
    const list = answers && { lines: answers, ...(flags.keepAnswers !== undefined && { keep: flags.keepAnswers }) };
    const asked = questions.map((text) => ({ task: "ask", text, generation, ...(list && { answers: list }) }) as const);
    const onText = (_: string, question: string | null, text: string, progress: Progress) =>
      line?.show(headOf(question), text, progress);
    const run = { items: ofEvery([image], asked), model: flags, ...frames, ...attention, ...(line && { onText }) };
    const failures = await runLocally(run, (result, progress) => {
      if ("ranked" in result && result.ranked) printRanked(result, result.ranked, flags, progress);
      else print(result, flags.format, progress, line);
    });
    process.exitCode = failures > 0 ? 1 : 0;
  });
}

function headOf(question: string | null): string {
  return `${question}\t`;
}

/** The likeliest of the given answers, or all of them. */
function printRanked(
  { image, asked: question, attention }: LocalResult,
  ranked: readonly RankedAnswer[],
  { format, allScores }: Flags,
  progress: Progress,
): void {
  const looked = attention === undefined ? {} : { attention };
  for (const answer of allScores ? ranked : ranked.slice(0, 1)) {
    const { text, tokenIds: token_ids, score } = answer;
    if (format === "jsonl") writeJson({ image, question, text, token_ids, score, ...looked }, progress);
    else writeLine(`${headOf(question)}${oneLine(text)}\t${score}`, progress);
  }
}

function print(result: LocalResult, format: OutputFormat, progress: Progress, line: StreamedLine | null): void {
  const { image, asked: question, attention } = result;
  if (format === "jsonl") {
    const outcome = "error" in result ? { error: result.error } : { text: result.text, token_ids: result.tokenIds };
    writeJson({ image, question, ...outcome, ...(attention !== undefined && { attention }) }, progress);
  } else if ("error" in result) {
    line?.abandon();
    progress.clear();
    tell(`${image}: ${oneLine(question ?? "").slice(0, 80)}: ${result.error.type}: ${result.error.message}`);
  } else if (line) {
    line.finish(headOf(question), result.text, progress);
  } else {
    writeLine(`${headOf(question)}${oneLine(result.text)}`, progress);
  }
}
