// blipfleet caption IMAGE...

import type { Command } from "commander";
import { type AttentionFlag, AttentionFolder, addAttentionOption, attentionHelp } from "./attention-folder.ts";
import { UsageError } from "./errors.ts";
import { addFramesOption, type FramesFlag } from "./frames-option.ts";
import { addGenerationOptions, type GenerationFlags, generationFrom } from "./generation-options.ts";
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

type Flags = ModelFlags &
  FormatFlag &
  StreamFlag &
  AttentionFlag &
  FramesFlag &
  GenerationFlags & { readonly prompt?: string };

export function addCaptionCommand(program: Command): void {
  const command = program
    .command("caption")
    .description("Say what images show. Runs in this process; no server is needed.")
    .argument(
      "<image...>",
      "image files: JPEG, PNG, WebP, AVIF, GIF (first frame), TIFF; with --frames also folders of frames",
    )
    .option("--prompt <text>", "text that the caption continues, used as it is");
  addModelOptions(command);
  addSettingsOptions(command);
  addFormatOption(command);
  addStreamOption(command);
  addAttentionOption(command);
  addFramesOption(command);
  addGenerationOptions(command);
  command.addHelpText(
    "after",
    `
Output with --format jsonl, one line per image in the order given:
  {"image": PATH, "text": CAPTION, "token_ids": [...]}   or   {"image": PATH, "error": {"type", "message"}}
  with --attention also "attention": PATH
${attentionHelp}
Examples:
  blipfleet caption photo.jpg
  blipfleet caption photos/*.jpg --format jsonl > captions.jsonl
  blipfleet caption photo.jpg --prompt "a photo of" --num-beams 5 --length-penalty -1.0
  blipfleet caption photo.jpg --attention looks
  blipfleet caption film.gif --frames 4
  blipfleet caption photo.jpg --do-sample --top-p 0.9 --seed 7 --stream
`,
  );
  command.action(async (images: string[], flags: Flags) => {
    const generation = generationFrom(flags);
    const line = streamedLine(flags, flags.format, generation);
    if (flags.frames !== undefined && flags.attention !== undefined) {
      throw new UsageError("--frames: expected no --attention beside it, which is about one image");
    }
    const frames = flags.frames === undefined ? {} : { frames: flags.frames };
    const attention = flags.attention === undefined ? {} : { attention: new AttentionFolder(flags.attention, images) };
    const { ofEvery, runLocally } = await import("./local-run.ts");
    const asked = [{ task: "caption", text: flags.prompt ?? null, generation }] as const;
    const onText = (image: string, _: string | null, text: string, progress: Progress) =>
      line?.show(headOf(image), text, progress);
    const run = { items: ofEvery(images, asked), model: flags, ...frames, ...attention, ...(line && { onText }) };
    const failures = await runLocally(run, (result, progress) => print(result, flags.format, progress, line));
    process.exitCode = failures > 0 ? 1 : 0;
  });
}

function headOf(image: string): string {
  return `${image}\t`;
}

function print(result: LocalResult, format: OutputFormat, progress: Progress, line: StreamedLine | null): void {
  const { image, attention } = result;
  if (format === "jsonl") {
    const line =
      "error" in result ? { image, error: result.error } : { image, text: result.text, token_ids: result.tokenIds };
    writeJson({ ...line, ...(attention !== undefined && { attention }) }, progress);
  } else if ("error" in result) {
    line?.abandon();
    progress.clear();
    tell(`${image}: ${result.error.type}: ${result.error.message}`);
  } else if (line) {
    line.finish(headOf(image), result.text, progress);
  } else {
    writeLine(`${headOf(image)}${oneLine(result.text)}`, progress);
  }
}
