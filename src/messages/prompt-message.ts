// One activation as one message: the tensor's bytes as the body, what they are in the headers.
//
//     Blipfleet-Version   1
//     Blipfleet-Model     hex SHA-256 of the checkpoint
//     Blipfleet-Key       the key that it was stored under
//     Blipfleet-Kind      features | prompt
//     Blipfleet-Dtype     f32 | f16          little-endian, row-major
//     Blipfleet-Shape     rows,columns
//     Blipfleet-Producer  who made it; for people only, not covered by the checksum
//     Blipfleet-Sha256    hex SHA-256 over the first six values, each followed by a newline, and then the body

import { createHash } from "node:crypto";
import type { Activation, ActivationType } from "../stages.ts";
import { PromptStoreError } from "./errors.ts";
import type { ActivationForm, MissReason, PromptKey } from "./prompt-store.ts";

export interface PromptMessage {
  readonly headers: Readonly<Record<string, string>>;
  readonly bytes: Uint8Array;
}

export const headerNames = {
  version: "Blipfleet-Version",
  model: "Blipfleet-Model",
  key: "Blipfleet-Key",
  kind: "Blipfleet-Kind",
  dtype: "Blipfleet-Dtype",
  shape: "Blipfleet-Shape",
  producer: "Blipfleet-Producer",
  sha256: "Blipfleet-Sha256",
} as const;

const version = "1";

/**
 * The message that carries an activation. The body is the activation's own memory, not a copy.
 * @throws PromptStoreError when the bytes are not as many as kind, type and shape say.
 */
export function toMessage(key: PromptKey, activation: Activation, producer: string): PromptMessage {
  const expected = byteCount(activation);
  if (activation.bytes.byteLength !== expected) {
    throw new PromptStoreError(
      `prompt store: expected ${formText(activation)} to be ${expected} bytes, got ${activation.bytes.byteLength}`,
    );
  }
  const covered = coveredValues(key, activation);
  return {
    headers: {
      [headerNames.version]: covered[0],
      [headerNames.model]: covered[1],
      [headerNames.key]: covered[2],
      [headerNames.kind]: covered[3],
      [headerNames.dtype]: covered[4],
      [headerNames.shape]: covered[5],
      [headerNames.producer]: producer.replace(/[^\x20-\x7e]/g, "?"),
      [headerNames.sha256]: checksum(covered, activation.bytes),
    },
    bytes: activation.bytes,
  };
}

/**
 * The activation of a message, or why it must not be used: `corrupt` when the message contradicts itself (checksum,
 * length, headers), `foreign` when it is sound but made for another key, checkpoint, kind, dtype or shape.
 */
export function fromMessage(
  key: PromptKey,
  message: PromptMessage,
  expected?: ActivationForm,
): Activation | { readonly miss: MissReason } {
  const header = (name: keyof typeof headerNames) => message.headers[headerNames[name]] ?? "";
  const values = [header("version"), header("model"), header("key"), header("kind"), header("dtype"), header("shape")];
  if (checksum(values, message.bytes) !== header("sha256")) return { miss: "corrupt" };
  if (header("version") !== version) return { miss: "foreign" };
  const activation = parseForm(header("kind"), header("dtype"), header("shape"), message.bytes);
  if (activation === undefined || byteCount(activation) !== message.bytes.byteLength) return { miss: "corrupt" };
  if (header("model") !== key.modelDigest || header("key") !== key.key) return { miss: "foreign" };
  if (expected !== undefined && !sameForm(activation, expected)) return { miss: "foreign" };
  return activation;
}

/** Bytes of an activation's body: rows * columns * element size. */
export function byteCount(form: ActivationForm): number {
  return form.shape[0] * form.shape[1] * (form.type === "f16" ? 2 : 4);
}

/** e.g. "features (257, 1408) f32" */
export function formText(form: ActivationForm): string {
  return `${form.kind} (${form.shape.join(", ")}) ${form.type}`;
}

type Covered = readonly [string, string, string, string, string, string];

function coveredValues(key: PromptKey, form: ActivationForm): Covered {
  return [version, key.modelDigest, key.key, form.kind, form.type, form.shape.join(",")];
}

function checksum(values: readonly string[], bytes: Uint8Array): string {
  const hash = createHash("sha256");
  for (const value of values) hash.update(`${value}\n`, "utf8");
  return hash.update(bytes).digest("hex");
}

function parseForm(kind: string, type: string, shape: string, bytes: Uint8Array): Activation | undefined {
  const sizes = /^([1-9]\d{0,8}),([1-9]\d{0,8})$/.exec(shape);
  if (sizes === null || !isKind(kind) || !isType(type)) return undefined;
  return { kind, type, shape: [Number(sizes[1]), Number(sizes[2])], bytes };
}

function isKind(text: string): text is Activation["kind"] {
  return text === "features" || text === "prompt";
}

function isType(text: string): text is ActivationType {
  return text === "f32" || text === "f16";
}

function sameForm(a: ActivationForm, b: ActivationForm): boolean {
  return a.kind === b.kind && a.type === b.type && a.shape[0] === b.shape[0] && a.shape[1] === b.shape[1];
}
