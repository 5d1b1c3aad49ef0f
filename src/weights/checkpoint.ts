// A checkpoint in Hugging Face layout, opened: its settings, and where each tensor lies in its weight files.

import { readdir, readFile, stat } from "node:fs/promises";
import path from "node:path";
import { CheckpointError, ConfigError, WeightsError } from "./errors.ts";
import { isIgnored, type NamedTensor, type NameTable } from "./names/tensor-names.ts";
import { type LocateOptions, locateCheckpoint } from "./repository.ts";
import { readSafetensorsHeader, type StoredTensor } from "./safetensors.ts";
import { indexFile, isShardName, singleFile, weightMap } from "./weight-files.ts";

export interface Checkpoint {
  /** As the user gave it. */
  readonly ref: string;
  /** Absolute path of the folder that holds the files. */
  readonly folder: string;
  /** Names of the weight files, the index included, sorted. */
  readonly weightFiles: readonly string[];
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  /** What is wrong with the weight files; expectTensors throws it together with what it finds itself. */
  readonly problems: readonly string[];
}

/**
 * Find the checkpoint, downloading it if need be, and read the headers of its weight files.
 * @param ref a directory in Hugging Face layout, or org/name[@revision]
 * @throws CheckpointError, ConfigError, HubError; WeightsError when there is no readable list of weights at all
 */
export async function openCheckpoint(ref: string, options: LocateOptions = {}): Promise<Checkpoint> {
  const folder = await locateCheckpoint(ref, options);
  const files = new Set(await readdir(folder));
  if (!files.has("config.json")) {
    throw new CheckpointError(
      `${ref}: expected a model in Hugging Face layout, got a directory without config.json (${folder})`,
    );
  }
  if (files.has(singleFile)) {
    const { tensors, problems } = await readSafetensorsHeader(path.join(folder, singleFile), singleFile);
    return { ref, folder, weightFiles: [singleFile], tensors: byName(tensors), problems };
  }
  if (files.has(indexFile)) return openShards(ref, folder);
  throw new CheckpointError(
    `${ref}: expected ${singleFile} or ${indexFile}, got ${otherWeights(files) ?? "no weights"}; ` +
      "save the model with safe_serialization=True",
  );
}

function otherWeights(files: ReadonlySet<string>): string | undefined {
  return [...files].find((name) => /\.(bin|pt|pth|h5|msgpack|ckpt)$/.test(name));
}

function byName(tensors: readonly StoredTensor[]): Map<string, StoredTensor> {
  return new Map(tensors.map((tensor) => [tensor.name, tensor]));
}

async function openShards(ref: string, folder: string): Promise<Checkpoint> {
  const places = weightMap(ref, JSON.parse(await readText(ref, folder, indexFile)));
  const problems: string[] = [];
  const tensors = new Map<string, StoredTensor>();
  const shards = [...new Set(places.values())].sort();
  for (const shard of shards) {
    if (!isShardName(shard)) {
      problems.push(`${indexFile}: expected names of safetensors files beside it, got ${JSON.stringify(shard)}`);
      continue;
    }
    const file = path.join(folder, shard);
    if (!(await isFile(file))) {
      const lost = [...places.values()].filter((place) => place === shard).length;
      problems.push(`${shard}: expected it beside ${indexFile}, got no such file (${lost} tensors)`);
      continue;
    }
    const read = await readSafetensorsHeader(file, shard);
    problems.push(...read.problems);
    const found = byName(read.tensors);
    for (const [name, tensor] of found) {
      const place = places.get(name);
      if (place === shard) tensors.set(name, tensor);
      else problems.push(`${shard}: ${name}: expected in ${place ?? "no shard"} by ${indexFile}, got it here`);
    }
    // A shard that cannot be read has been named already, not each of its tensors.
    if (read.problems.length > 0) continue;
    for (const [name, place] of places) {
      if (place === shard && !found.has(name)) problems.push(`${shard}: expected ${name} by ${indexFile}, got none`);
    }
  }
  const weightFiles = [indexFile, ...shards.filter(isShardName)].sort();
  return { ref, folder, weightFiles, tensors, problems };
}

async function isFile(file: string): Promise<boolean> {
  try {
    return (await stat(file)).isFile();
  } catch {
    return false;
  }
}

/** Whether the checkpoint's folder has a file of this name. */
export function hasFile({ folder }: Checkpoint, name: string): Promise<boolean> {
  return isFile(path.join(folder, name));
}

async function readText(ref: string, folder: string, name: string): Promise<string> {
  const text = await readFile(path.join(folder, name), "utf8");
  try {
    JSON.parse(text);
  } catch (cause) {
    throw new ConfigError(`${ref}: expected ${name} to be JSON, got ${String(cause)}`, { cause });
  }
  return text;
}

/**
 * A settings file of the checkpoint; null when it has none of this name.
 * @throws ConfigError when it is not a JSON object
 */
export async function readSettings(checkpoint: Checkpoint, name: string): Promise<Record<string, unknown> | null> {
  const { ref, folder } = checkpoint;
  if (!(await isFile(path.join(folder, name)))) return null;
  const value: unknown = JSON.parse(await readText(ref, folder, name));
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw new ConfigError(`${ref}: expected ${name} to be a JSON object, got ${JSON.stringify(value).slice(0, 80)}`);
}

const usableTypes: readonly string[] = ["F32", "F16", "BF16"];

/**
 * Check the weight files against what the model needs, all of it as one list.
 * @throws WeightsError with what is missing, unexpected, of a wrong shape, of a dtype that is not supported, and what
 * was wrong with the files themselves.
 */
export function expectTensors(checkpoint: Checkpoint, names: NameTable): void {
  const problems = [...checkpoint.problems];
  const check = ({ name, shape }: NamedTensor, required: boolean) => {
    const stored = checkpoint.tensors.get(name);
    if (stored === undefined) {
      // In a file that could not be read it may well be.
      if (required && checkpoint.problems.length === 0) {
        problems.push(`${name}: expected (${shape.join(", ")}), got no such tensor`);
      }
      return;
    }
    if (stored.shape.length !== shape.length || stored.shape.some((size, i) => size !== shape[i])) {
      problems.push(`${name}: expected (${shape.join(", ")}), got (${stored.shape.join(", ")})`);
    }
    if (!usableTypes.includes(stored.dtype)) {
      problems.push(`${name}: expected ${usableTypes.join(", ")}, got ${stored.dtype}`);
    }
  };
  for (const named of names.required) check(named, true);
  for (const named of names.tied) check(named, false);
  const known = new Set([...[...names.required, ...names.tied].map(({ name }) => name), ...(names.unused ?? [])]);
  for (const name of checkpoint.tensors.keys()) {
    if (!known.has(name) && !isIgnored(name)) problems.push(`${name}: expected no tensor of this name`);
  }
  if (problems.length > 0) throw new WeightsError(checkpoint.ref, problems);
}
