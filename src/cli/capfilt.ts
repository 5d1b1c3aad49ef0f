// blipfleet capfilt SOURCE...

import type { Command } from "commander";
import { defaultThreshold } from "../filtering.ts";
import { addFilterOptions, type FilterFlags } from "./filter-options.ts";
import { addGenerationOptions, type GenerationFlags, samplingGenerationFrom } from "./generation-options.ts";
import { addImageFolderOption, type ImageFolderFlag } from "./image-folder-option.ts";
import type { FilterResult } from "./local-filtering.ts";
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

type Flags = ModelFlags &
  FormatFlag &
  GenerationFlags &
  FilterFlags &
  ImageFolderFlag & { readonly prompt?: string; readonly kept?: boolean };

export function addCapfiltCommand(program: Command): void {
  const command = program
    .command("capfilt")
    .description("Clean image-text pairs: caption each image, and keep the texts, given or made, that belong to it.")
    .argument(
      "<source...>",
      "lists: .jsonl ({image, text or texts?, prompt?}) or .csv (image, text?, prompt?); images and folders have no texts",
    )
    .option("--prompt <text>", "text that captions continue, used as it is; for items without their own")
    .option("--kept", "only texts that are kept: the cleaned set");
  addModelOptions(command, "the demo model that captions images");
  addSettingsOptions(command);
  addFilterOptions(command);
  addImageFolderOption(command);
  addFormatOption(command);
  addGenerationOptions(command);
  command.addHelpText(
    "after",
    `
As BLIP was bootstrapped (arXiv 2201.12086, CapFilt): --model makes one caption of each image, --filter-model says for this and
for every given text how likely it belongs to the image (itm), and what reaches --threshold stays. Of texts that differ in case
and white space only, the first stays.

Captions are drawn, so that they say different things: --do-sample with --top-p 0.9 and --seed 0 unless flags say otherwise (with
--num-beams above 1: beam search). The same seed draws the same caption of an image, alone or in a job.

Output with --format jsonl, one line per text in the order given, the made one last:
  {"image": PATH, "text": TEXT, "source": "web" or "synthetic", "itm": PROBABILITY, "itc": COSINE, "kept": BOOLEAN, "reason": TEXT}
  or {"image": PATH, "error": {"type", "message"}}. itm and itc are null of a text that could not be judged.

Examples:
  blipfleet capfilt web.jsonl --kept --format jsonl > clean.jsonl
  blipfleet capfilt photos --threshold 0.7
  blipfleet capfilt web.csv --model Salesforce/blip-image-captioning-base --filter-model Salesforce/blip-itm-base-coco
`,
  );
  command.action(async (sources: string[], flags: Flags) => {
    const generation = samplingGenerationFrom(flags);
    const { filterLocally } = await import("./local-filtering.ts");
    const run = {
      ...{ sources, imageFolder: flags.images, model: flags, filterModel: flags.filterModel },
      ...{ prompt: flags.prompt ?? null, generation, threshold: flags.threshold ?? defaultThreshold },
    };
    const { failures, judged, kept } = await filterLocally(run, (result, progress) => print(result, flags, progress));
    tell(`${kept} of ${judged} texts kept${failures > 0 ? `, ${failures} images failed` : ""}`);
    process.exitCode = failures > 0 ? 1 : 0;
  });
}

function print(
  result: FilterResult,
  { format, kept }: { format: OutputFormat; kept?: boolean },
  progress: Progress,
): void {
  const { image } = result;
  if ("error" in result) {
    if (format === "jsonl" && !kept) {
      writeJson({ image, error: result.error }, progress);
    } else {
      progress.clear();
      tell(`${image}: ${result.error.type}: ${result.error.message}`);
    }
    return;
  }
  for (const decision of result.decisions) {
    if (kept && !decision.kept) continue;
    if (format === "jsonl") {
      writeJson({ image, ...decision }, progress);
    } else {
      const { text, source, reason } = decision;
      const verdict = decision.kept ? "keep" : "drop";
      writeLine(`${verdict}  ${source.padEnd(9)}  ${image}\t${oneLine(text)}\t(${oneLine(reason)})`, progress);
    }
  }
}
