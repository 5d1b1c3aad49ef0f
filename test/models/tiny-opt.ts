// The tiny OPT models of test/fixtures/beam-search on the GPU, and what transformers generated with them.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Gpu } from "../../src/gpu/device.ts";
import { packageRoot } from "../../src/gpu/package-root.ts";
import type { Tensor } from "../../src/gpu/tensor.ts";
import type { Linear, Norm, Segment } from "../../src/kernels/weights.ts";
import type { GenerateRow } from "../../src/models/generate-row.ts";
import type { LanguageModel } from "../../src/models/language-model.ts";
import { type OptWeights, optLanguageModel } from "../../src/models/opt.ts";
import { type OptConfig, optConfig } from "../../src/models/opt-config.ts";
import { type Activation, defaultGeneration, type Generation } from "../../src/stages.ts";
import { packF16 } from "../kernels/harness.ts";
import { optLogits } from "../reference/opt.ts";

const folder = join(packageRoot, "test", "fixtures", "beam-search");

interface Case {
  readonly generation: {
    readonly max_new_tokens: number;
    readonly min_new_tokens: number;
    readonly num_beams: number;
    readonly length_penalty: number;
    readonly repetition_penalty: number;
  };
  /** Which of the prompts and texts. */
  readonly prompt: number;
  readonly token_ids: readonly number[];
}

interface ModelCases {
  readonly name: string;
  readonly queries: number;
  readonly image_id: number;
  readonly text_config: Readonly<Record<string, unknown>>;
  readonly texts: readonly (readonly number[])[];
  readonly cases: readonly Case[];
}

interface Values {
  readonly shape: readonly number[];
  readonly values: Float32Array;
}

export const tinyModels = (JSON.parse(readFileSync(join(folder, "expected.json"), "utf8")) as { models: ModelCases[] })
  .models;

/** The f32 tensors of a fixture, by name. */
export function tinyTensors(name: string): Map<string, Values> {
  const bytes = readFileSync(join(folder, `${name}.safetensors`));
  const headerLength = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.toString("utf8", 8, 8 + headerLength)) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >;
  const tensors = new Map<string, Values>();
  for (const [key, entry] of Object.entries(header)) {
    if (key === "__metadata__") continue;
    const [from, to] = entry.data_offsets;
    const copy = new Uint8Array(bytes.subarray(8 + headerLength + from, 8 + headerLength + to));
    tensors.set(key, { shape: entry.shape, values: new Float32Array(copy.buffer) });
  }
  return tensors;
}

export interface TinyOpt {
  readonly cases: ModelCases;
  readonly config: OptConfig;
  readonly weights: OptWeights;
  readonly model: LanguageModel;
  readonly tensors: Map<string, Values>;
  prompt(which: number): Activation;
  row(which: number, generation: Generation): GenerateRow;
}

/** Upload a fixture. `headColumns`: split the head into segments of that many columns. */
export async function loadTinyOpt(
  gpu: Gpu,
  name: string,
  { type = "f32", headColumns }: { type?: "f32" | "f16"; headColumns?: number } = {},
): Promise<TinyOpt> {
  const cases = tinyModels.find((each) => each.name === name);
  if (!cases) throw new Error(`no fixture ${name}`);
  const tensors = tinyTensors(name);
  const config = optConfig(cases.text_config);
  const of = (key: string): Values => {
    const found = tensors.get(key);
    if (!found) throw new Error(`${name}: no tensor ${key}`);
    return found;
  };
  const upload = async (key: string, shape: readonly number[], values: Float32Array, as: "f32" | "f16") => {
    const tensor = gpu.alloc(key, shape, as);
    const data = as === "f16" ? packF16(values) : values;
    await gpu.upload(tensor, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    return tensor;
  };
  const vector = (key: string): Promise<Tensor> => upload(key, of(key).shape, of(key).values, "f32");
  const linear = async (key: string, bias: string | null, perSegment = Number.POSITIVE_INFINITY): Promise<Linear> => {
    const { shape, values } = of(key);
    const [columns = 0, inputs = 0] = shape;
    const segments: Segment[] = [];
    for (let from = 0; from < columns; from += perSegment) {
      const width = Math.min(perSegment, columns - from);
      const stride = Math.ceil(width / 4) * 4;
      const transposed = new Float32Array(inputs * stride);
      for (let i = 0; i < inputs; i++) {
        for (let c = 0; c < width; c++) transposed[i * stride + c] = values[(from + c) * inputs + i] ?? Number.NaN;
      }
      segments.push({ weight: await upload(key, [inputs, stride], transposed, type), from, width });
    }
    return { segments, bias: bias ? await vector(bias) : null, inputs, columns };
  };
  /** One Linear of several; an odd width has its own segments. */
  const besides = async (parts: readonly Linear[], bias: readonly number[]): Promise<Linear> => {
    const segments = parts.flatMap((part, i) =>
      part.segments.map((segment) => ({ ...segment, from: i * part.columns + segment.from })),
    );
    const inputs = parts[0]?.inputs ?? 0;
    return {
      segments,
      bias: await upload("bias", [bias.length], Float32Array.from(bias), "f32"),
      inputs,
      columns: bias.length,
    };
  };
  const norm = async (key: string): Promise<Norm> => ({
    gain: await vector(`${key}.weight`),
    bias: await vector(`${key}.bias`),
    eps: config.normEps,
  });
  const layers: OptWeights["layers"][number][] = [];
  for (let i = 0; i < config.layers; i++) {
    const at = `model.decoder.layers.${i}`;
    const both = (part: string) => linear(`${at}.${part}.weight`, `${at}.${part}.bias`);
    const thirds = ["q_proj", "k_proj", "v_proj"].map((part) => `self_attn.${part}`);
    layers.push({
      attentionNorm: await norm(`${at}.self_attn_layer_norm`),
      qkv: await besides(
        await Promise.all(thirds.map(both)),
        thirds.flatMap((part) => [...of(`${at}.${part}.bias`).values]),
      ),
      out: await both("self_attn.out_proj"),
      mlpNorm: await norm(`${at}.final_layer_norm`),
      fc1: await both("fc1"),
      fc2: await both("fc2"),
    });
  }
  const table = of("model.decoder.embed_positions.weight");
  const weights: OptWeights = {
    head: await linear("model.decoder.embed_tokens.weight", null, headColumns),
    // An odd width has no packed f16 form.
    positions: await upload("positions", table.shape, table.values, config.width % 2 === 0 ? type : "f32"),
    layers,
    norm: await norm("model.decoder.final_layer_norm"),
  };
  const prompts = of("prompts");
  const prompt = (which: number): Activation => {
    const size = cases.queries * config.width;
    const values = prompts.values.slice(which * size, (which + 1) * size);
    const data = type === "f16" ? packF16(values) : values;
    const bytes = new Uint8Array(data.buffer, 0, size * (type === "f16" ? 2 : 4));
    return { kind: "prompt", type, shape: [cases.queries, config.width], bytes };
  };
  return {
    cases,
    config,
    weights,
    tensors,
    model: optLanguageModel(weights, config, { queries: cases.queries, imageId: cases.image_id, cacheType: type }),
    prompt,
    row: (which, generation) => ({ prompt: prompt(which), textIds: cases.texts[which] ?? [], generation }),
  };
}

/** A fixture case's settings in our spelling. */
export function generationOf({ generation }: Case): Generation {
  return {
    ...defaultGeneration,
    maxNewTokens: generation.max_new_tokens,
    minNewTokens: generation.min_new_tokens,
    numBeams: generation.num_beams,
    lengthPenalty: generation.length_penalty,
    repetitionPenalty: generation.repetition_penalty,
  };
}

/** f64 logits after every position of image slots, text and further ids; for f32 fixtures. */
export function logitsBehind(
  { config, cases, tensors }: TinyOpt,
  { prompt, textIds }: Pick<GenerateRow, "prompt" | "textIds">,
  ids: readonly number[],
): number[][] {
  const values = [...new Float32Array(Uint8Array.from(prompt.bytes).buffer)];
  const image = Array.from({ length: cases.queries }, (_, q) => values.slice(q * config.width, (q + 1) * config.width));
  const reference = {
    heads: config.heads,
    layers: config.layers,
    eps: config.normEps,
    tensor: (name: string) => {
      const found = tensors.get(name);
      if (!found) throw new Error(`no tensor ${name}`);
      return found;
    },
    round: (value: number) => value,
    roundPosition: (value: number) => value,
  };
  return optLogits(reference, image, [...textIds, ...ids]);
}
