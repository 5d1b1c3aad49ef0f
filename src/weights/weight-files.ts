// The names that weight files have, and the index that says which shard holds which tensor.

import { WeightsError } from "./errors.ts";

export const singleFile = "model.safetensors";
export const indexFile = "model.safetensors.index.json";

/** A plain file name: an index must not lead out of its folder. */
export function isShardName(name: string): boolean {
  return /^[\w.-]+\.safetensors$/.test(name) && !name.startsWith(".");
}

/** Tensor -> shard. @throws WeightsError */
export function weightMap(ref: string, index: unknown): Map<string, string> {
  const map = typeof index === "object" && index !== null && "weight_map" in index ? index.weight_map : undefined;
  const entries = typeof map === "object" && map !== null && !Array.isArray(map) ? Object.entries(map) : [];
  const places = entries.filter((entry): entry is [string, string] => typeof entry[1] === "string");
  if (places.length === 0 || places.length < entries.length) {
    throw new WeightsError(ref, [
      `${indexFile}: expected weight_map to name a file for every tensor, got ${typeof map}`,
    ]);
  }
  return new Map(places);
}
