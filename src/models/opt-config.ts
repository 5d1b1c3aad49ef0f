// The `text_config` of an OPT checkpoint, with the defaults of transformers 4.57.6 for keys that a file leaves out.

import { classDefaults } from "./class-defaults.ts";
import { UnsupportedModelError } from "./errors.ts";

export interface OptConfig {
  readonly vocabulary: number;
  readonly width: number;
  readonly layers: number;
  readonly heads: number;
  readonly ffnWidth: number;
  readonly maxPositions: number;
  /** Inside the square root of every layer norm; OPT has no key for it. */
  readonly normEps: number;
  /** What starts a text when none is given. */
  readonly bosId: number;
  /** Ids that end a sequence; generation_config.json is not asked, as in that release. */
  readonly stopIds: readonly number[];
}

const defaults = classDefaults.OPTConfig;

/** More than any checkpoint has; a number beyond it would cost its own length in memory before anything is checked. */
const mostLayers = 1000;

/** Keys that hold one whole number. */
type CountKey =
  | "vocab_size"
  | "hidden_size"
  | "num_hidden_layers"
  | "ffn_dim"
  | "max_position_embeddings"
  | "num_attention_heads"
  | "bos_token_id";

/**
 * @param text the `text_config` object of config.json.
 * @param ref names the checkpoint in errors
 * @throws UnsupportedModelError for a variant of OPT that is not built: one sentence naming the key.
 */
export function optConfig(text: Readonly<Record<string, unknown>>, ref = "config.json"): OptConfig {
  const number = (key: CountKey): number => {
    const value = text[key] ?? defaults[key];
    if (typeof value === "number" && Number.isInteger(value) && value >= 0) return value;
    throw new UnsupportedModelError(
      `${ref}: text_config.${key}: expected a whole number, got ${JSON.stringify(value)}`,
    );
  };
  const expect = (key: keyof typeof defaults | "word_embed_proj_dim", expected: unknown, standard: unknown) => {
    const value = text[key] ?? standard;
    if (value !== expected) {
      throw new UnsupportedModelError(
        `${ref}: text_config.${key}: expected ${JSON.stringify(expected)} (OPT-2.7b, OPT-6.7b and their like), got ${JSON.stringify(value)}`,
      );
    }
  };
  const layers = number("num_hidden_layers");
  if (layers > mostLayers) {
    throw new UnsupportedModelError(
      `${ref}: text_config.num_hidden_layers: expected at most ${mostLayers}, got ${layers}`,
    );
  }
  const width = number("hidden_size");
  expect("activation_function", "relu", defaults.activation_function);
  expect("do_layer_norm_before", true, defaults.do_layer_norm_before);
  expect("_remove_final_layer_norm", false, defaults._remove_final_layer_norm);
  expect("word_embed_proj_dim", width, width);
  expect("enable_bias", true, defaults.enable_bias);
  expect("layer_norm_elementwise_affine", true, defaults.layer_norm_elementwise_affine);
  expect("tie_word_embeddings", true, defaults.tie_word_embeddings);
  const heads = number("num_attention_heads");
  if (heads === 0 || width % heads !== 0) {
    throw new UnsupportedModelError(
      `${ref}: text_config.num_attention_heads: expected a divisor of the hidden size ${width}, got ${heads}`,
    );
  }
  return {
    vocabulary: number("vocab_size"),
    width,
    layers,
    heads,
    ffnWidth: number("ffn_dim"),
    maxPositions: number("max_position_embeddings"),
    normEps: 1e-5,
    bosId: number("bos_token_id"),
    stopIds: stopIds(text.eos_token_id === undefined ? defaults.eos_token_id : text.eos_token_id, ref),
  };
}

function stopIds(value: unknown, ref: string): readonly number[] {
  const ids: unknown[] = value === null ? [] : Array.isArray(value) ? value : [value];
  const bad = ids.find((id) => typeof id !== "number" || !Number.isInteger(id) || id < 0);
  if (bad !== undefined) {
    throw new UnsupportedModelError(
      `${ref}: text_config.eos_token_id: expected an id or a list of ids, got ${JSON.stringify(value)}`,
    );
  }
  return ids as number[];
}
