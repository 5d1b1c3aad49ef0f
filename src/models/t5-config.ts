// The `text_config` of a T5 checkpoint, with the defaults of transformers 4.57.6 for keys that a file leaves out.

import { classDefaults } from "./class-defaults.ts";
import { UnsupportedModelError } from "./errors.ts";
import type { RelativePositions } from "./relative-buckets.ts";

export interface T5Config {
  readonly vocabulary: number;
  readonly width: number;
  readonly heads: number;
  readonly headWidth: number;
  readonly ffnWidth: number;
  readonly encoderLayers: number;
  readonly decoderLayers: number;
  readonly relativePositions: RelativePositions;
  readonly normEps: number;
  readonly activation: "gelu" | "tanh gelu";
  /** The head is the embeddings, and what it reads is scaled by width^-0.5. */
  readonly tied: boolean;
  /** What every decoder sequence begins with. */
  readonly startId: number;
  /** Ids that end a sequence; generation_config.json is not asked, as in that release. */
  readonly stopIds: readonly number[];
}

const defaults = classDefaults.T5Config;

/** More than any checkpoint has; a number beyond it would cost its own length in memory before anything is checked. */
const most = { num_layers: 1000, num_decoder_layers: 1000, relative_attention_max_distance: 1e5 } as const;

/** Keys that hold one whole number. */
type CountKey =
  | "vocab_size"
  | "d_model"
  | "num_heads"
  | "d_kv"
  | "d_ff"
  | "num_layers"
  | "num_decoder_layers"
  | "relative_attention_num_buckets"
  | "relative_attention_max_distance";

/** ACT2FN's names of the two forms of GELU. */
const activations: Readonly<Record<string, T5Config["activation"]>> = {
  gelu: "gelu",
  gelu_new: "tanh gelu",
  gelu_pytorch_tanh: "tanh gelu",
};

/**
 * @param text the `text_config` object of config.json.
 * @param ref names the checkpoint in errors
 * @throws UnsupportedModelError for a variant of T5 that is not built: one sentence naming the key.
 */
export function t5Config(text: Readonly<Record<string, unknown>>, ref = "config.json"): T5Config {
  const refuse = (key: string, expected: string, got: unknown): never => {
    throw new UnsupportedModelError(`${ref}: text_config.${key}: expected ${expected}, got ${JSON.stringify(got)}`);
  };
  const count = (key: CountKey, standard: number | null = defaults[key]): number => {
    const value = text[key] ?? standard;
    if (typeof value !== "number" || !Number.isInteger(value) || value < 1) {
      return refuse(key, "a positive whole number", value);
    }
    const limit = (most as Readonly<Partial<Record<CountKey, number>>>)[key] ?? Number.POSITIVE_INFINITY;
    return value <= limit ? value : refuse(key, `at most ${limit}`, value);
  };
  const buckets = count("relative_attention_num_buckets");
  const maxDistance = count("relative_attention_max_distance");
  if (buckets < 4) refuse("relative_attention_num_buckets", "at least 4", buckets);
  if (2 * maxDistance <= buckets) {
    refuse("relative_attention_max_distance", `more than half of the ${buckets} buckets`, maxDistance);
  }
  const eps = text.layer_norm_epsilon ?? defaults.layer_norm_epsilon;
  if (typeof eps !== "number" || !(eps >= 0)) return refuse("layer_norm_epsilon", "a number of at least 0", eps);
  const tied = text.tie_word_embeddings ?? defaults.tie_word_embeddings;
  if (typeof tied !== "boolean") return refuse("tie_word_embeddings", "true or false", tied);
  const encoderLayers = count("num_layers");
  return {
    vocabulary: count("vocab_size"),
    width: count("d_model"),
    heads: count("num_heads"),
    headWidth: count("d_kv"),
    ffnWidth: count("d_ff"),
    encoderLayers,
    decoderLayers: count("num_decoder_layers", encoderLayers),
    relativePositions: { buckets, maxDistance },
    normEps: eps,
    activation: activationOf(text, refuse),
    tied,
    startId: startId(text, refuse),
    stopIds: stopIds(text.eos_token_id === undefined ? defaults.eos_token_id : text.eos_token_id, refuse),
  };
}

type Refuse = (key: string, expected: string, got: unknown) => never;

/**
 * Files say it twice, and the second key wins: feed_forward_proj "gated-gelu" alone means tanh's form, and BLIP-2's files
 * add dense_act_fn "gelu", which is the exact one.
 */
function activationOf(text: Readonly<Record<string, unknown>>, refuse: Refuse): T5Config["activation"] {
  const form = text.feed_forward_proj ?? defaults.feed_forward_proj;
  if (form !== "gated-gelu" || text.is_gated_act === false) {
    return refuse(
      "feed_forward_proj",
      '"gated-gelu" (flan-t5 and its like)',
      text.is_gated_act === false ? "ungated" : form,
    );
  }
  const name = text.dense_act_fn ?? "gelu_new";
  return activations[String(name)] ?? refuse("dense_act_fn", Object.keys(activations).join(" or "), name);
}

/** As transformers' generate(): bos where no start is named. */
function startId(text: Readonly<Record<string, unknown>>, refuse: Refuse): number {
  const value = text.decoder_start_token_id ?? text.bos_token_id ?? null;
  return isId(value) ? value : refuse("decoder_start_token_id", "the id that the decoder starts with", value);
}

function stopIds(value: unknown, refuse: Refuse): readonly number[] {
  const ids: unknown[] = value === null ? [] : Array.isArray(value) ? value : [value];
  return ids.every(isId) ? ids : refuse("eos_token_id", "an id or a list of ids", value);
}

function isId(value: unknown): value is number {
  return typeof value === "number" && Number.isInteger(value) && value >= 0;
}
