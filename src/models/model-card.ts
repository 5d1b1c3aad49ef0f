// What is known of a checkpoint without its weights on a device. Every family has its line here.

import type { ContrastCard, Dtype, LabelCard, ModelCard } from "../stages.ts";
import { type Checkpoint, readSettings } from "../weights/checkpoint.ts";
import { CheckpointError } from "../weights/errors.ts";
import type { Blip2Programs } from "./blip-2.ts";
import type { RetrievalPrograms } from "./blip-2-retrieval.ts";
import { checkBlipCaption, checkBlipRetrieval, checkBlipVqa } from "./check-blip.ts";
import { checkBlip2Opt, checkBlip2Retrieval, checkBlip2T5 } from "./check-blip-2.ts";
import { checkClip } from "./check-clip.ts";
import { checkInstructBlipLlama, checkInstructBlipT5 } from "./check-instructblip.ts";
import { checkVisualGlm } from "./check-visualglm.ts";
import type { CheckedModel } from "./checked-model.ts";
import type { ContrastPrograms } from "./contrast.ts";
import { type FamilyFor, families, familyFor, familyOf, type Purpose } from "./families.ts";
import type { CheckOptions } from "./run-settings.ts";

/** What a model is known by, by what it is wanted for. */
export interface Cards {
  texts: ModelCard;
  captions: ModelCard;
  answers: ModelCard;
  matches: ContrastCard;
  vectors: ContrastCard;
  labels: LabelCard;
}

/** What it runs. */
export interface Programs {
  texts: Blip2Programs;
  captions: Blip2Programs;
  answers: Blip2Programs;
  matches: RetrievalPrograms;
  vectors: ContrastPrograms;
  labels: ContrastPrograms;
}

type Check<P extends Purpose> = (
  checkpoint: Checkpoint,
  json: Record<string, unknown>,
  dtype: Dtype,
  options: CheckOptions,
) => Promise<CheckedModel<Cards[P], Programs[P]>>;

const instructBlip = { "instructblip-vicuna": checkInstructBlipLlama, "instructblip-t5": checkInstructBlipT5 };

/** By purpose, every family that serves it. */
const checks: { readonly [P in Purpose]: { readonly [F in FamilyFor<P>]: Check<P> } } = {
  texts: {
    "blip-2-opt": checkBlip2Opt,
    "blip-2-t5": checkBlip2T5,
    ...instructBlip,
    "blip-caption": checkBlipCaption,
    "blip-vqa": checkBlipVqa,
    visualglm: checkVisualGlm,
  },
  captions: {
    "blip-2-opt": checkBlip2Opt,
    "blip-2-t5": checkBlip2T5,
    ...instructBlip,
    "blip-caption": checkBlipCaption,
    visualglm: checkVisualGlm,
  },
  answers: {
    "blip-2-opt": checkBlip2Opt,
    "blip-2-t5": checkBlip2T5,
    ...instructBlip,
    "blip-vqa": checkBlipVqa,
    visualglm: checkVisualGlm,
  },
  matches: { "blip-2-retrieval": checkBlip2Retrieval, "blip-retrieval": checkBlipRetrieval },
  vectors: { "blip-2-retrieval": checkBlip2Retrieval, "blip-retrieval": checkBlipRetrieval, clip: checkClip },
  labels: { clip: checkClip },
};

/** Options of what is wanted a model for: default, to write texts. */
export interface PurposeOption<P extends Purpose> {
  readonly purpose?: P;
}

/**
 * Check a checkpoint whole, and compute its card. Nothing is uploaded.
 * @throws UnsupportedModelError, ConfigError, CheckpointError, WeightsError
 */
export async function checkModel<P extends Purpose = "texts">(
  checkpoint: Checkpoint,
  dtype: Dtype,
  options: CheckOptions & PurposeOption<P> = {},
): Promise<CheckedModel<Cards[P], Programs[P]>> {
  const purpose = (options.purpose ?? "texts") as P;
  const json = await modelSettings(checkpoint);
  const check: Check<P> = checks[purpose][familyFor(checkpoint.ref, json, purpose)];
  return check(checkpoint, json, dtype, options);
}

/** What a checkpoint can be used for, its main purpose first. @throws UnsupportedModelError, CheckpointError, ConfigError */
export async function purposesOf(checkpoint: Checkpoint): Promise<readonly Purpose[]> {
  return families[familyOf(checkpoint.ref, await modelSettings(checkpoint))].purposes;
}

/** config.json */
async function modelSettings(checkpoint: Checkpoint): Promise<Record<string, unknown>> {
  const json = await readSettings(checkpoint, "config.json");
  if (json === null) throw new CheckpointError(`${checkpoint.ref}: expected config.json, got no such file`);
  return json;
}
