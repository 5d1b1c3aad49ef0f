// The name of one activation in the prompt store: a digest of everything that its bytes depend on.
//
// Canonical encoding, version 1: UTF-8 text, one line per field in the order of `fields` below, each
//     <name>=<length of the value in UTF-8 bytes>:<value>\n
// after the line "blipfleet prompt 1\n". A field that does not apply is left out. The lengths make the encoding
// unambiguous whatever an instruction contains. Numbers are written as JavaScript writes them (shortest decimal that
// reads back as the same double), lists with a comma between. The key is the SHA-256 of that text in lower-case hex.

import { createHash } from "node:crypto";
import type { Activation, Dtype, ImageSettings, VisionChanges } from "../stages.ts";
import { PromptStoreError } from "./errors.ts";
import type { PromptKey } from "./prompt-store.ts";

/** Everything that the bytes of an activation depend on, besides the code's rounding (which `dtype` stands for). */
export interface PromptKeyInput {
  /** Hex SHA-256 of the image file's bytes, as stored. */
  readonly imageSha256: string;
  /** ModelCard.digest */
  readonly modelDigest: string;
  readonly kind: Activation["kind"];
  /** Which frame of an animated or multi-page image; 0 is the first. */
  readonly frame: number;
  /** ModelCard.image */
  readonly image: ImageSettings;
  /** CheckpointCard.vision */
  readonly vision?: VisionChanges;
  /** Version of the code that turns bytes into pixels; a change of pixels must change it. */
  readonly preprocessing: number;
  readonly dtype: Dtype;
  /** Only where the Q-Former reads the text; else leave it out, so that one prompt serves every question. */
  readonly instruction?: string;
}

const hexDigest = /^[0-9a-f]{64}$/;

/**
 * The key of one activation. Equal inputs give equal keys on every machine.
 * @throws PromptStoreError when a digest is not 64 lower-case hex digits or the frame is not a whole number from 0.
 */
export function promptKey(input: PromptKeyInput): PromptKey {
  expectDigest("promptKey: imageSha256", input.imageSha256);
  expectDigest("promptKey: modelDigest", input.modelDigest);
  if (!Number.isSafeInteger(input.frame) || input.frame < 0) {
    throw new PromptStoreError(`promptKey: expected frame to be a whole number from 0, got ${input.frame}`);
  }
  const text = canonicalText(input);
  return { modelDigest: input.modelDigest, key: createHash("sha256").update(text, "utf8").digest("hex") };
}

/** The text that is hashed; exported so that a test can hold the encoding still. */
export function canonicalText(input: PromptKeyInput): string {
  const { image, vision } = input;
  const fields: (readonly [string, string | undefined])[] = [
    ["image", input.imageSha256],
    ["model", input.modelDigest],
    ["kind", input.kind],
    ["frame", String(input.frame)],
    ["size", `${image.height},${image.width}`],
    ["shortest edge", image.shortestEdge === undefined ? undefined : String(image.shortestEdge)],
    ["resample", image.resample],
    ["rescale", String(image.rescale)],
    ["mean", image.mean.join(",")],
    ["std", image.std.join(",")],
    ["positions", vision?.positions],
    ["vision norms", vision?.normEps?.join(",")],
    ["preprocessing", String(input.preprocessing)],
    ["dtype", input.dtype],
    ["instruction", input.instruction],
  ];
  const lines = fields.flatMap(([name, value]) =>
    value === undefined ? [] : [`${name}=${Buffer.byteLength(value, "utf8")}:${value}\n`],
  );
  return `blipfleet prompt 1\n${lines.join("")}`;
}

/**
 * The subject that holds the activation: blipfleet.prompt.<modelDigest>.<key>.
 * @throws PromptStoreError when either part is not 64 lower-case hex digits.
 */
export function promptSubject(key: PromptKey): string {
  expectDigest("prompt store: modelDigest", key.modelDigest);
  expectDigest("prompt store: key", key.key);
  return `blipfleet.prompt.${key.modelDigest}.${key.key}`;
}

function expectDigest(where: string, value: string): void {
  if (!hexDigest.test(value)) {
    throw new PromptStoreError(`${where}: expected 64 lower-case hex digits, got ${JSON.stringify(value)}`);
  }
}
