// The fixture of VisualGLM: where it is, what is expected of it, and the same weights under SAT's names.

import assert from "node:assert/strict";
import { cp, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import type { ActivationType } from "../../src/stages.ts";
import { readSafetensorsHeader } from "../../src/weights/safetensors.ts";
import { fixtures, readJson } from "../fixture-files.ts";
import { withHeader } from "../weights/checkpoint-files.ts";
import type { ExpectedCase } from "./parity.ts";

export const glmFolder: string = path.join(fixtures, "glm", "visualglm-tiny");

export interface GlmCase extends ExpectedCase {
  /** What follows the image. */
  readonly text_for_model: string;
  readonly command?: readonly string[];
  readonly f16?: { readonly token_ids: readonly number[]; readonly text: string };
}

export interface GlmExpected {
  readonly tensors: readonly {
    readonly prefix: string;
    readonly dtype: ActivationType;
    readonly image: string;
    readonly input_ids: readonly number[];
    /** Ids in front of the image. */
    readonly before: number;
    /** Ids behind <sop>. */
    readonly following: readonly number[];
  }[];
  readonly cases: readonly GlmCase[];
}

export function readGlmExpected(): Promise<GlmExpected> {
  return readJson<GlmExpected>("glm/visualglm-tiny/expected.json");
}

/** The reference's ids, with one placeholder in the place of all. */
export function textIdsOf(inputIds: readonly number[], queries: number): number[] {
  const at = inputIds.indexOf(0);
  assert.ok(inputIds.slice(at, at + queries).every((id) => id === 0));
  return inputIds.toSpliced(at, queries - 1);
}

/** Names as SAT's checkpoints have them, by the fixture's. */
function satName(name: string): string {
  if (name === "lm_head.weight") return "mixins.chatglm-final.lm_head.weight";
  return name.replace(/^image_encoder\./, "mixins.eva.model.");
}

/** The checkpoint as SAT would hold it: other names, and the language model's fused rows in thirds. */
export async function writeAsSat(folder: string, { heads, width }: { heads: number; width: number }): Promise<void> {
  await cp(glmFolder, folder, { recursive: true });
  const file = path.join(glmFolder, "model.safetensors");
  const { tensors } = await readSafetensorsHeader(file, "model.safetensors");
  const content = await readFile(file);
  const header: Record<string, unknown> = {};
  const parts: Buffer[] = [];
  let end = 0;
  const add = (name: string, dtype: string, shape: readonly number[], bytes: Buffer) => {
    header[name] = { dtype, shape, data_offsets: [end, end + bytes.length] };
    end += bytes.length;
    parts.push(bytes);
  };
  for (const { name, dtype, shape, start, bytes } of tensors) {
    const own = content.subarray(start, start + bytes);
    const fused = /^transformer\..*\.query_key_value\./.test(name);
    add(satName(name), dtype, shape, fused ? inThirds(own, heads, width) : own);
  }
  add("transformer.position_embeddings.weight", "F16", [3, width], Buffer.alloc(6 * width));
  const head = withHeader(JSON.stringify(header), 0);
  await writeFile(path.join(folder, "model.safetensors"), Buffer.concat([head, ...parts]));
}

/** [head][query, key, value] -> [query, key, value][head]; a row is a matrix's row or a vector's value. */
function inThirds(rows: Buffer, heads: number, width: number): Buffer {
  const rowBytes = rows.length / (3 * width);
  const blockBytes = (width / heads) * rowBytes;
  const blocks = Array.from({ length: 3 * heads }, (_, i) => {
    const [part, head] = [Math.floor(i / heads), i % heads];
    const from = (3 * head + part) * blockBytes;
    return rows.subarray(from, from + blockBytes);
  });
  return Buffer.concat(blocks);
}
