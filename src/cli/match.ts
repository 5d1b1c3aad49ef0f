// blipfleet match IMAGE TEXT...

import type { Command } from "commander";
import type { MatchResult } from "./local-match.ts";
import {
  addFormatOption,
  addModelOptions,
  addSettingsOptions,
  type FormatFlag,
  type ModelFlags,
  type OutputFormat,
} from "./model-options.ts";
import { oneLine, score, tell, writeJson, writeLine } from "./output.ts";
import type { Progress } from "./progress.ts";
import { expectTextsGiven } from "./texts-given.ts";

type Flags = ModelFlags & FormatFlag;

export function addMatchCommand(program: Command): void {
  const command = program
    .command("match")
    .description("Say how well texts fit an image. Runs in this process; no server is needed.")
    .argument("<image>", "image file: JPEG, PNG, WebP, AVIF, GIF (first frame), TIFF")
    .argument("<text...>", "one or more texts; the image is encoded once for all of them");
  addModelOptions(command, "the demo model that compares images with texts");
  addSettingsOptions(command);
  addFormatOption(command);
  command.addHelpText(
    "after",
    `
itm is the probability that the text belongs to the image, from the matching head, which reads both together.
itc is the cosine of the two, the largest over the image's query vectors; it is quick, and good for ranking many.

Output with --format jsonl, one line per text in the order given:
  {"image": PATH, "text": TEXT, "itm": PROBABILITY, "itc": COSINE}
  or, in place of itm and itc, "error": {"type", "message"}

Examples:
  blipfleet match photo.jpg "a dog on a beach" "a cat on a sofa"
  blipfleet match photo.jpg "a red square" --model Salesforce/blip2-itm-vit-g --format jsonl
`,
  );
  command.action(async (image: string, texts: string[], flags: Flags) => {
    expectTextsGiven("text", texts);
    const { matchLocally } = await import("./local-match.ts");
    const failures = await matchLocally({ image, texts, model: flags }, (result, progress) =>
      print(result, flags.format, progress),
    );
    process.exitCode = failures > 0 ? 1 : 0;
  });
}

function print(result: MatchResult, format: OutputFormat, progress: Progress): void {
  const { image, text } = result;
  if (format === "jsonl") {
    const outcome = "error" in result ? { error: result.error } : { itm: score(result.itm), itc: score(result.itc) };
    writeJson({ image, text, ...outcome }, progress);
  } else if ("error" in result) {
    progress.clear();
    tell(`${image}: ${oneLine(text).slice(0, 80)}: ${result.error.type}: ${result.error.message}`);
  } else {
    writeLine(`itm ${result.itm.toFixed(4)}  itc ${result.itc.toFixed(4).padStart(7)}  ${oneLine(text)}`, progress);
  }
}
