// --model, --dtype and --format, which every command takes, and the demo model that stands in without --model.

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type Command, Option } from "commander";
import { packageRoot } from "../gpu/package-root.ts";
import { familyFor, type Purpose, purposes } from "../models/families.ts";
import { type Behaviour, type Dtype, dtypes, type RunSettings } from "../stages.ts";
import { UsageError } from "./errors.ts";
import { wholeNumber } from "./generation-options.ts";
import { fromHere } from "./output.ts";

export type OutputFormat = "text" | "jsonl";
export type DtypeChoice = Dtype | "auto";

export interface ModelFlags extends SettingsFlags {
  readonly model?: string;
  readonly dtype: DtypeChoice;
}

/** How the model is run where that is a choice. */
export interface SettingsFlags {
  readonly imageSize?: number | undefined;
  readonly behaviour?: Behaviour | undefined;
}

/** Pixels; four times the largest that any of these models was trained with, which is 82 thousand tokens with patches of 14. */
const mostImageSize = 4096;

export interface FormatFlag {
  readonly format: OutputFormat;
}

/** Add --model and --dtype. @param without what the command does without --model, for its help */
export function addModelOptions(command: Command, without = "the demo model"): Command {
  return command
    .option("--model <ref>", `Hugging Face id, or a directory in Hugging Face layout (default: ${without})`)
    .addOption(new Option("--dtype <type>", dtypeHelp).default("auto").argParser(parseDtype));
}

/** What --dtype may be. */
export const dtypeHelp =
  "f32, f16, int8 or int4 (weights quantized as they are loaded), or auto: f32 for checkpoints stored in f32, else f16";

/** Add --image-size and --behaviour. */
export function addSettingsOptions(command: Command): Command {
  return command
    .option(
      "--image-size <pixels>",
      "resize images to a square of this side; positions are interpolated (default: as the checkpoint was trained)",
      wholeNumber("--image-size", 1, mostImageSize),
    )
    .addOption(
      new Option("--behaviour <whose>", "whose code is followed where transformers and LAVIS, the original, differ")
        .choices(["huggingface", "lavis"])
        .default("huggingface"),
    );
}

/** Settings that differ from the defaults. */
export function settingsFrom({ imageSize, behaviour = "huggingface" }: SettingsFlags): RunSettings {
  return {
    ...(imageSize === undefined ? {} : { imageSize }),
    ...(behaviour === "huggingface" ? {} : { behaviour }),
  };
}

/** The flags that give these settings. */
export function settingsAsFlags({ imageSize, behaviour }: RunSettings = {}): readonly string[] {
  return [
    ...(imageSize === undefined ? [] : ["--image-size", String(imageSize)]),
    ...(behaviour === undefined ? [] : ["--behaviour", behaviour]),
  ];
}

/** Add --format. */
export function addFormatOption(command: Command): Command {
  return command.addOption(
    new Option("--format <format>", "text, or jsonl: one JSON object a line")
      .default("text")
      .argParser((text): OutputFormat => {
        if (text === "text" || text === "jsonl") return text;
        throw new UsageError(`--format: expected text or jsonl, got ${JSON.stringify(text)}`);
      }),
  );
}

export function parseDtype(text: string): DtypeChoice {
  const choice = [...dtypes, "auto" as const].find((each) => each === text);
  if (choice !== undefined) return choice;
  throw new UsageError(`--dtype: expected ${dtypes.join(", ")} or auto, got ${JSON.stringify(text)}`);
}

export interface ChosenModel {
  readonly ref: string;
  /** A sentence for the user when the model is a stand-in. */
  readonly notice: string | null;
}

/** The first folder of `folder` that holds a checkpoint for this purpose. */
function trainedModel(purpose: Purpose, folder: string): string | null {
  if (!existsSync(folder)) return null;
  for (const name of readdirSync(folder).sort()) {
    const config = join(folder, name, "config.json");
    if (!existsSync(config)) continue;
    if (isFor(purpose, JSON.parse(readFileSync(config, "utf8")))) return join(folder, name);
  }
  return null;
}

function isFor(purpose: Purpose, config: Record<string, unknown>): boolean {
  try {
    return familyFor("", config, purpose) !== null;
  } catch {
    return false;
  }
}

/** What --model may name where no demo model fits: the class, and a checkpoint of it. */
const examples: { readonly [P in Purpose]: readonly [string, string] } = {
  texts: ["Blip2ForConditionalGeneration", "Salesforce/blip2-opt-2.7b"],
  captions: ["Blip2ForConditionalGeneration", "Salesforce/blip2-opt-2.7b"],
  answers: ["Blip2ForConditionalGeneration", "Salesforce/blip2-opt-2.7b"],
  matches: ["Blip2ForImageTextRetrieval", "Salesforce/blip2-itm-vit-g"],
  vectors: ["Blip2ForImageTextRetrieval or CLIPModel", "Salesforce/blip2-itm-vit-g"],
  labels: ["CLIPModel", "openai/clip-vit-base-patch32"],
};

/**
 * The model to use: --model, else the demo model that fits the command.
 * @param demoModels the folder of demo models
 * @throws UsageError when neither is there.
 */
export function chooseModel(
  model: string | undefined,
  purpose: Purpose = "texts",
  demoModels: string = join(packageRoot, "models"),
): ChosenModel {
  if (model !== undefined) {
    if (model === "") throw new UsageError("--model: expected a Hugging Face id or a directory, got an empty text");
    return { ref: model, notice: null };
  }
  const trained = trainedModel(purpose, demoModels);
  if (trained !== null)
    return { ref: trained, notice: `using the demo model ${fromHere(trained)}; choose another with --model` };
  const [architecture, example] = examples[purpose];
  throw new UsageError(
    `--model: expected a Hugging Face id or a directory of a ${architecture} checkpoint, got none, and no demo ` +
      `model that ${purposes[purpose]} is there; name one, as --model ${example}`,
  );
}
