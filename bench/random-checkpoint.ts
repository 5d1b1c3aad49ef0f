// A BLIP-2 checkpoint of chosen sizes with random weights, to be timed: its texts mean nothing.

import { copyFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { packageRoot } from "../src/gpu/package-root.ts";
import { blip2Config } from "../src/models/blip-2-config.ts";
import { optNames, projectionNames, qFormerNames, visionNames } from "../src/weights/names/blip-2-opt.ts";
import { leavesOf, type NamedTensor, type NameLeaf } from "../src/weights/names/tensor-names.ts";

type Settings = Readonly<Record<string, unknown>>;

/** What differs from the checkpoint whose tokenizer is used. */
export interface RandomCheckpoint {
  /** A folder in Hugging Face layout: its tokenizer, and every setting that is not given here. */
  readonly like: string;
  readonly imageSize: number;
  readonly vision: Settings;
  readonly qFormer: Settings;
  readonly text: Settings;
  readonly queries: number;
}

/** Heavy enough to time a pipeline, and to need several submits on a CPU driver: 401 tokens, about 1.2 GFLOP an image. */
export const heavy: RandomCheckpoint = {
  like: join(packageRoot, "test", "fixtures", "models", "blip2-opt-tiny"),
  imageSize: 280,
  vision: { hidden_size: 176, num_attention_heads: 2, num_hidden_layers: 4, intermediate_size: 256 },
  qFormer: { hidden_size: 48, num_attention_heads: 4, num_hidden_layers: 3, intermediate_size: 96 },
  text: {
    hidden_size: 48,
    num_attention_heads: 4,
    num_hidden_layers: 2,
    ffn_dim: 96,
    max_position_embeddings: 128,
  },
  queries: 16,
};

/** Write it, weights in f32. @returns `folder` */
export async function writeRandomCheckpoint(folder: string, sizes: RandomCheckpoint): Promise<string> {
  const { like, imageSize, vision, qFormer, text, queries } = sizes;
  const read = async (name: string) => JSON.parse(await readFile(join(like, name), "utf8"));
  const settings = await read("config.json");
  const config = {
    ...settings,
    num_query_tokens: queries,
    vision_config: { ...settings.vision_config, ...vision, image_size: imageSize },
    qformer_config: { ...settings.qformer_config, ...qFormer, encoder_hidden_size: vision.hidden_size },
    text_config: { ...settings.text_config, ...text, word_embed_proj_dim: text.hidden_size },
  };
  const processor = { ...(await read("preprocessor_config.json")), size: { height: imageSize, width: imageSize } };
  await mkdir(folder, { recursive: true });
  for (const name of ["tokenizer.json", "tokenizer_config.json"]) await copyFile(join(like, name), join(folder, name));
  await writeFile(join(folder, "config.json"), JSON.stringify(config));
  await writeFile(join(folder, "preprocessor_config.json"), JSON.stringify(processor));
  const checked = blip2Config(folder, config);
  const names = {
    vit: visionNames(checked),
    qFormer: qFormerNames(checked),
    projection: projectionNames(checked),
    opt: optNames(checked),
  };
  await writeFile(join(folder, "model.safetensors"), randomWeights(leavesOf(names)));
  return folder;
}

/** A safetensors file: norms that change nothing, and everything else so small that activations keep their size. */
function randomWeights(leaves: readonly NameLeaf[]): Buffer {
  const header: Record<string, unknown> = {};
  const parts: Float32Array[] = [];
  let end = 0;
  const add = ({ name, shape }: NamedTensor, value: () => number) => {
    const values = Float32Array.from({ length: shape.reduce((product, size) => product * size, 1) }, value);
    header[name] = { dtype: "F32", shape, data_offsets: [end, end + values.byteLength] };
    end += values.byteLength;
    parts.push(values);
  };
  const next = randomNumbers(41);
  const within = (bound: number) => () => (2 * next() - 1) * bound;
  for (const leaf of leaves) {
    if (leaf.kind === "linear") {
      add(leaf.weight, within(Math.sqrt(3 / leaf.inputs)));
      if (leaf.bias !== null) add(leaf.bias, within(0.1));
    } else if (leaf.kind === "norm") {
      add(leaf.gain, () => 1);
      add(leaf.bias, () => 0);
    } else if (leaf.kind === "rms-norm") {
      add(leaf.gain, () => 1);
    } else if (leaf.kind !== "computed") {
      add(leaf.stored, within(1));
    }
  }
  const text = Buffer.from(JSON.stringify(header));
  const head = Buffer.alloc(8);
  head.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([head, text, ...parts.map(({ buffer }) => Buffer.from(buffer))]);
}

/** Numbers in [0, 1), always the same ones: a linear congruential generator (Numerical Recipes' constants), high bits. */
function randomNumbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}
