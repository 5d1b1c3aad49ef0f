// blipfleet classify IMAGE LABEL...

import type { Command } from "commander";
import type { LabelResult } from "./local-classify.ts";
import {
  addFormatOption,
  addModelOptions,
  addSettingsOptions,
  type FormatFlag,
  type ModelFlags,
  type OutputFormat,
} from "./model-options.ts";
import { oneLine, score, tell, writeJson, writeLine } from "./output.ts";
import { addTemplateOption, type TemplateFlag } from "./template-option.ts";
import { expectTextsGiven } from "./texts-given.ts";

type Flags = ModelFlags & FormatFlag & TemplateFlag;

export function addClassifyCommand(program: Command): void {
  const command = program
    .command("classify")
    .description("Say which of some labels fits an image best, with CLIP. Runs in this process; no server is needed.")
    .argument("<image>", "image file: JPEG, PNG, WebP, AVIF, GIF (first frame), TIFF")
    .argument("<label...>", "one or more labels, compared as they are unless there is a template");
  addTemplateOption(command);
  addModelOptions(command, "the demo model that classifies images");
  addSettingsOptions(command);
  addFormatOption(command);
  command.addHelpText(
    "after",
    `
logit is the cosine of image and label, times the model's scale; probability is its softmax over the labels given. A label
that cannot be read has no part in it. With several templates a label's vector is the mean of its texts' unit vectors, at
length 1 again, as CLIP was evaluated.

Labels are shown by probability, the largest first. Output with --format jsonl, one line per label in the order given:
  {"image": PATH, "label": LABEL, "logit": LOGIT, "probability": PROBABILITY}
  or, in place of logit and probability, "error": {"type", "message"}

Examples:
  blipfleet classify photo.jpg cat dog --model openai/clip-vit-base-patch32 --template "a photo of a {}"
  blipfleet classify photo.jpg "a red square" "a blue circle" --model openai/clip-vit-large-patch14 --format jsonl
`,
  );
  command.action(async (image: string, labels: string[], flags: Flags) => {
    expectTextsGiven("label", labels);
    const { classifyLocally } = await import("./local-classify.ts");
    const { template: templates = [] } = flags;
    const results = await classifyLocally({ image, labels, templates, model: flags });
    print(results, flags.format);
    process.exitCode = results.some((result) => "error" in result) ? 1 : 0;
  });
}

function print(results: readonly LabelResult[], format: OutputFormat): void {
  if (format === "jsonl") {
    for (const result of results) writeJson(fields(result));
    return;
  }
  const scored = results.flatMap((result) => ("error" in result ? [] : [result]));
  for (const { label, logit, probability } of scored.sort((a, b) => b.probability - a.probability)) {
    writeLine(`${probability.toFixed(4)}  logit ${logit.toFixed(2).padStart(6)}  ${oneLine(label)}`);
  }
  for (const result of results) {
    if (!("error" in result)) continue;
    const { image, label, error } = result;
    tell(`${image}: ${oneLine(label).slice(0, 80)}: ${error.type}: ${error.message}`);
  }
}

function fields(result: LabelResult): Record<string, unknown> {
  const { image, label } = result;
  if ("error" in result) return { image, label, error: result.error };
  return { image, label, logit: score(result.logit), probability: score(result.probability) };
}
