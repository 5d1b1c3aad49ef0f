// What the parity tests of whole models share: fixtures, their expected tensors, and a comparison of whole tensors.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { RowScheduler } from "../../src/gpu/scheduler.ts";
import { toPixels } from "../../src/image/pixels.ts";
import type { LoadedModel } from "../../src/models/load-model.ts";
import {
  type Activation,
  type ActivationType,
  defaultGeneration,
  type Generation,
  type ImageSettings,
  type Pixels,
} from "../../src/stages.ts";
import { readSafetensorsHeader } from "../../src/weights/safetensors.ts";
import { fixtures, readJson } from "../fixture-files.ts";

/** test/fixtures/models/<name>/expected.json; see make-models.py. */
export interface Expected {
  readonly tensors: readonly {
    readonly prefix: string;
    readonly dtype: ActivationType;
    readonly image: string;
    readonly input_ids: readonly number[];
  }[];
  readonly cases: readonly ExpectedCase[];
}

export interface ExpectedCase {
  readonly name: string;
  readonly image: string;
  readonly prompt: string | null;
  readonly input_ids: readonly number[];
  readonly token_ids: readonly number[];
  readonly text: string;
  /** Left out where the answer hangs on a rounding. */
  readonly f16?: { readonly token_ids: readonly number[] };
  readonly generation: Readonly<
    Record<"max_new_tokens" | "min_new_tokens" | "num_beams" | "length_penalty" | "repetition_penalty", number>
  >;
}

export function modelFolder(name: string): string {
  return path.join(fixtures, "models", name);
}

export function readExpected(name: string): Promise<Expected> {
  return readJson<Expected>(`models/${name}/expected.json`);
}

/** The f32 tensors of a file, by name. */
export async function readTensors(file: string): Promise<Map<string, Float32Array>> {
  const { tensors, problems } = await readSafetensorsHeader(file, file);
  assert.deepEqual(problems, []);
  const content = await readFile(file);
  return new Map(
    tensors.map(({ name, dtype, start, bytes }) => {
      assert.equal(dtype, "F32");
      return [name, new Float32Array(new Uint8Array(content.subarray(start, start + bytes)).buffer)];
    }),
  );
}

export async function pixelsOf(image: string, settings: ImageSettings): Promise<Pixels> {
  return toPixels(await readFile(path.join(fixtures, "images", image)), settings);
}

export function generationOf({ generation }: Pick<ExpectedCase, "generation">): Generation {
  return {
    ...defaultGeneration,
    maxNewTokens: generation.max_new_tokens,
    minNewTokens: generation.min_new_tokens,
    numBeams: generation.num_beams,
    lengthPenalty: generation.length_penalty,
    repetitionPenalty: generation.repetition_penalty,
  };
}

/** The root of the mean square of the gaps, against that of the expected values, is at most `tolerance`. */
export function expectNear(
  name: string,
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  tolerance: number,
): void {
  assert.equal(actual.length, expected.length, `${name}: number of values`);
  let [gaps, squares, worst, at] = [0, 0, -1, -1];
  for (let i = 0; i < expected.length; i++) {
    const gap = Math.abs((actual[i] ?? Number.NaN) - (expected[i] ?? Number.NaN));
    assert.ok(!Number.isNaN(gap), `${name}: value ${i} is ${actual[i]} for ${expected[i]}`);
    gaps += gap * gap;
    squares += (expected[i] ?? 0) ** 2;
    if (gap > worst) [worst, at] = [gap, i];
  }
  const relative = Math.sqrt(gaps / squares);
  if (process.env.BLIPFLEET_SHOW_GAPS) process.stderr.write(`gap: ${name}: ${relative.toExponential(1)}\n`);
  if (relative <= tolerance) return;
  assert.fail(
    `${name}: expected a relative gap of at most ${tolerance}, got ${relative.toPrecision(3)}; worst at ${at}: ` +
      `${actual[at]} for ${expected[at]}`,
  );
}

/** Every case of a fixture that has an answer under this type, through the scheduler, all at once. */
export async function idsOfCases(
  model: LoadedModel,
  cases: readonly ExpectedCase[],
): Promise<{ name: string; got: readonly number[]; expected: readonly number[] }[]> {
  const { card, programs } = model;
  const { encodeAndQuery, generate } = programs;
  assert.ok(encodeAndQuery && generate);
  const scheduler = new RowScheduler();
  const prompts = new Map<string, Promise<Activation>>();
  const [queries] = card.prompt;
  const results = cases.flatMap((given) => {
    const expected = card.dtype === "f16" ? given.f16?.token_ids : given.token_ids;
    if (expected === undefined) return [];
    const encode = async () => scheduler.run(encodeAndQuery, await pixelsOf(given.image, card.image));
    const prompt = prompts.get(given.image) ?? encode();
    prompts.set(given.image, prompt);
    const run = async () => ({
      name: given.name,
      expected,
      got: await scheduler.run(generate, {
        prompt: await prompt,
        textIds: given.input_ids.slice(queries),
        generation: generationOf(given),
      }),
    });
    return [run()];
  });
  const done = await Promise.all(results);
  await scheduler.close("drain");
  return done;
}
