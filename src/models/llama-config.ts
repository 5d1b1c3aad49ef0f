// The `text_config` of a Llama checkpoint, with the defaults of transformers 4.57.6 for keys that a file leaves out.

import { classDefaults } from "./class-defaults.ts";
import { UnsupportedModelError } from "./errors.ts";

export interface LlamaConfig {
  readonly vocabulary: number;
  readonly width: number;
  readonly layers: number;
  readonly heads: number;
  /** Of a head; even. */
  readonly headWidth: number;
  readonly ffnWidth: number;
  readonly maxPositions: number;
  /** Of rotary positions. */
  readonly rotaryBase: number;
  readonly normEps: number;
  /** The head is the embeddings. */
  readonly tied: boolean;
  /** Ids that end a sequence; generation_config.json is not asked, as in that release. */
  readonly stopIds: readonly number[];
}

const defaults = classDefaults.LlamaConfig;

/** More than any checkpoint has; a number beyond it would cost its own length in memory before anything is checked. */
const most = { num_hidden_layers: 1000, max_position_embeddings: 1e6 } as const;

/** Keys that hold one whole number. */
type CountKey =
  | "vocab_size"
  | "hidden_size"
  | "num_hidden_layers"
  | "intermediate_size"
  | "num_attention_heads"
  | "max_position_embeddings";

/**
 * @param text the `text_config` object of config.json.
 * @param ref names the checkpoint in errors
 * @throws UnsupportedModelError for a variant of Llama that is not built: one sentence naming the key.
 */
export function llamaConfig(text: Readonly<Record<string, unknown>>, ref = "config.json"): LlamaConfig {
  const refuse = (key: string, expected: string, got: unknown): never => {
    throw new UnsupportedModelError(`${ref}: text_config.${key}: expected ${expected}, got ${JSON.stringify(got)}`);
  };
  const count = (key: CountKey): number => {
    const value = text[key] ?? defaults[key];
    if (typeof value !== "number" || !Number.isInteger(value) || value < 1) {
      return refuse(key, "a positive whole number", value);
    }
    const limit = (most as Readonly<Partial<Record<CountKey, number>>>)[key] ?? Number.POSITIVE_INFINITY;
    return value <= limit ? value : refuse(key, `at most ${limit}`, value);
  };
  const expect = (key: string, expected: unknown, standard: unknown, why: string) => {
    const value = text[key] ?? standard;
    if (value !== expected) refuse(key, `${JSON.stringify(expected)} (${why})`, value);
  };
  const positive = (key: "rope_theta" | "rms_norm_eps"): number => {
    const value = text[key] ?? defaults[key];
    return typeof value === "number" && value > 0 ? value : refuse(key, "a number above 0", value);
  };
  const width = count("hidden_size");
  const heads = count("num_attention_heads");
  if (width % (2 * heads) !== 0) {
    refuse("num_attention_heads", `a divisor of the hidden size ${width} that leaves heads of an even width`, heads);
  }
  const vicuna = "Vicuna 7b, 13b and their like";
  expect("num_key_value_heads", heads, heads, `as many as query heads: ${vicuna}; grouped queries are not built`);
  expect("head_dim", width / heads, width / heads, `the hidden size over the heads: ${vicuna}`);
  expect("hidden_act", "silu", defaults.hidden_act, vicuna);
  expect("attention_bias", false, defaults.attention_bias, vicuna);
  expect("mlp_bias", false, defaults.mlp_bias, vicuna);
  // Settings that transformers spells out as no scaling at all.
  const scaling = text.rope_scaling as { rope_type?: unknown; type?: unknown } | null | undefined;
  if (scaling && (scaling.rope_type ?? scaling.type) !== "default") {
    refuse("rope_scaling", "null (scaled rotary positions are not built)", scaling);
  }
  const tied = text.tie_word_embeddings ?? defaults.tie_word_embeddings;
  if (typeof tied !== "boolean") return refuse("tie_word_embeddings", "true or false", tied);
  return {
    vocabulary: count("vocab_size"),
    width,
    layers: count("num_hidden_layers"),
    heads,
    headWidth: width / heads,
    ffnWidth: count("intermediate_size"),
    maxPositions: count("max_position_embeddings"),
    rotaryBase: positive("rope_theta"),
    normEps: positive("rms_norm_eps"),
    tied,
    stopIds: stopIds(text.eos_token_id === undefined ? defaults.eos_token_id : text.eos_token_id, refuse),
  };
}

type Refuse = (key: string, expected: string, got: unknown) => never;

function stopIds(value: unknown, refuse: Refuse): readonly number[] {
  const ids: unknown[] = value === null ? [] : Array.isArray(value) ? value : [value];
  const isId = (id: unknown): id is number => typeof id === "number" && Number.isInteger(id) && id >= 0;
  return ids.every(isId) ? ids : refuse("eos_token_id", "an id or a list of ids", value);
}
