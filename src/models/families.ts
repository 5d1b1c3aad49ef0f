// The kinds of checkpoints: how config.json names each, and what it is for. How each is checked and loaded is in
// model-card.ts and the files that it names.

import type { CheckpointCard } from "../stages.ts";
import { UnsupportedModelError } from "./errors.ts";

/** What a command may want of a model, as the end of a sentence that begins "a model that". */
export const purposes = {
  texts: "writes texts",
  captions: "captions images",
  answers: "answers questions",
  matches: "has a matching head for an image and a text",
  vectors: "compares images with texts",
  labels: "classifies images by labels",
} as const;
export type Purpose = keyof typeof purposes;

interface FamilyFacts {
  /** config.json's `model_type`. */
  readonly modelType: string;
  /** One of config.json's `architectures`; the first family of a model type is meant where a file names none. */
  readonly architecture: string;
  /** Another name that files give it. */
  readonly alias?: string;
  /** text_config's `model_type`, where one architecture has families for several; the first of them is meant without it. */
  readonly textModel?: string;
  /** The end of a sentence that begins with the architecture and "which". */
  readonly does: string;
  readonly purposes: readonly Purpose[];
  /** The commands that fit. */
  readonly commands: string;
}

/** By ModelCard.family. */
export const families = {
  "blip-2-opt": {
    modelType: "blip-2",
    architecture: "Blip2ForConditionalGeneration",
    textModel: "opt",
    does: "writes texts",
    purposes: ["texts", "captions", "answers"],
    commands: "caption, ask, chat, capfilt and job submit",
  },
  "blip-2-t5": {
    modelType: "blip-2",
    architecture: "Blip2ForConditionalGeneration",
    textModel: "t5",
    does: "writes texts",
    purposes: ["texts", "captions", "answers"],
    commands: "caption, ask, chat, capfilt and job submit",
  },
  "blip-2-retrieval": {
    modelType: "blip-2",
    architecture: "Blip2ForImageTextRetrieval",
    does: "compares images with texts",
    purposes: ["matches", "vectors"],
    commands: "match, index, search, capfilt --filter-model and job submit --task match or index",
  },
  "instructblip-vicuna": {
    modelType: "instructblip",
    architecture: "InstructBlipForConditionalGeneration",
    textModel: "llama",
    does: "writes texts",
    purposes: ["texts", "captions", "answers"],
    commands: "caption, ask, chat, capfilt and job submit",
  },
  "instructblip-t5": {
    modelType: "instructblip",
    architecture: "InstructBlipForConditionalGeneration",
    textModel: "t5",
    does: "writes texts",
    purposes: ["texts", "captions", "answers"],
    commands: "caption, ask, chat, capfilt and job submit",
  },
  "blip-caption": {
    modelType: "blip",
    architecture: "BlipForConditionalGeneration",
    does: "captions images",
    purposes: ["texts", "captions"],
    commands: "caption, capfilt and job submit --task caption or capfilt",
  },
  "blip-vqa": {
    modelType: "blip",
    architecture: "BlipForQuestionAnswering",
    does: "answers questions",
    purposes: ["texts", "answers"],
    commands: "ask, chat and job submit --task ask",
  },
  "blip-retrieval": {
    modelType: "blip",
    architecture: "BlipForImageTextRetrieval",
    does: "compares images with texts",
    purposes: ["matches", "vectors"],
    commands: "match, index, search, capfilt --filter-model and job submit --task match or index",
  },
  visualglm: {
    modelType: "chatglm",
    architecture: "ChatGLMForConditionalGenerationWithImage",
    alias: "ChatGLMModel",
    does: "writes texts",
    purposes: ["texts", "captions", "answers"],
    commands: "caption, ask, chat, capfilt and job submit",
  },
  clip: {
    modelType: "clip",
    architecture: "CLIPModel",
    does: "compares images with labels and other texts",
    purposes: ["labels", "vectors"],
    commands: "classify, index, search and job submit --task classify or index",
  },
} as const satisfies Readonly<Record<string, FamilyFacts>>;

export type Family = keyof typeof families;
/** The families that serve a purpose. */
export type FamilyFor<P extends Purpose> = {
  [F in Family]: P extends (typeof families)[F]["purposes"][number] ? F : never;
}[Family];

const names = Object.keys(families) as Family[];
const facts: Readonly<Record<Family, FamilyFacts>> = families;

export function serves(family: Family, purpose: Purpose): boolean {
  return (families[family].purposes as readonly Purpose[]).includes(purpose);
}

/**
 * The family of a checkpoint by its config.json.
 * @param ref names the checkpoint in errors
 * @throws UnsupportedModelError
 */
export function familyOf(ref: string, json: Record<string, unknown>): Family {
  const { model_type, architectures } = json;
  const ofType = names.filter((name) => families[name].modelType === model_type);
  const [first] = ofType;
  if (first === undefined) {
    const supported = unique(names.map((name) => `${families[name].modelType} (${families[name].architecture})`));
    throw new UnsupportedModelError(
      `${ref}: expected a supported model type, got ${JSON.stringify(model_type)}; supported: ${supported.join(", ")}`,
    );
  }
  const named = Array.isArray(architectures) && architectures.length > 0 ? architectures : null;
  const found = named ? ofType.find((name) => named.some((one) => isNamed(name, one))) : first;
  if (found !== undefined) return byTextModel(ref, json, found);
  const known = unique(ofType.map((name) => families[name].architecture));
  throw new UnsupportedModelError(
    `${ref}: expected ${known.join(" or ")}, got ${named?.join(", ")}; other heads of ${model_type} come later`,
  );
}

function isNamed(family: Family, architecture: unknown): boolean {
  return architecture === facts[family].architecture || architecture === facts[family].alias;
}

/** Of the families with this one's architecture, the one with the checkpoint's language model. */
function byTextModel(ref: string, { text_config }: Record<string, unknown>, first: Family): Family {
  const { modelType, architecture, textModel } = facts[first];
  const wanted = (text_config as { model_type?: unknown } | null | undefined)?.model_type ?? textModel;
  const same = names.filter((name) => facts[name].modelType === modelType && facts[name].architecture === architecture);
  const found = textModel === undefined ? first : same.find((name) => facts[name].textModel === wanted);
  if (found !== undefined) return found;
  throw new UnsupportedModelError(
    `${ref}: expected ${architecture} with the language model ${same.map((name) => facts[name].textModel).join(" or ")}, ` +
      `got ${JSON.stringify(wanted)}; others come later`,
  );
}

function unique(names: readonly string[]): readonly string[] {
  return [...new Set(names)];
}

/**
 * The family of a checkpoint that is wanted for something; one that is of no use for it is refused with what it is for.
 * @throws UnsupportedModelError
 */
export function familyFor<P extends Purpose>(ref: string, json: Record<string, unknown>, purpose: P): FamilyFor<P> {
  const family = familyOf(ref, json);
  expectServes({ ref, family }, purpose);
  return family as FamilyFor<P>;
}

/**
 * Refuse a model of no use for something, with what it is for.
 * @param card of a family of the list
 * @throws UnsupportedModelError
 */
export function expectServes({ ref, family }: Pick<CheckpointCard, "ref" | "family">, purpose: Purpose): void {
  if (serves(family as Family, purpose)) return;
  const { architecture, does, commands } = families[family as Family];
  throw new UnsupportedModelError(
    `${ref}: expected a model that ${purposes[purpose]}, got ${architecture}, which ${does}; use it with ${commands}`,
  );
}
