// What a model takes on its adapter, and whether there is so much: asked before anything is read.

import { readFileSync } from "node:fs";
import { freemem } from "node:os";
import { constrainedMemory, memoryUsage } from "node:process";
import { adapterLine } from "../gpu/adapter.ts";
import type { Gpu } from "../gpu/device.ts";
import { OutOfMemoryError } from "../gpu/errors.ts";
import type { RowProgram, WorkingBytes } from "../gpu/row-program.ts";
import type { Tensor } from "../gpu/tensor.ts";
import type { Stage } from "../messages/job.ts";
import { type CheckpointCard, type Dtype, dtypes } from "../stages.ts";
import { columnsOf, formOf } from "../weights/names/stacked-rows.ts";
import { isLeaf, type NameLeaf, type NameTree, type StackedNames } from "../weights/names/tensor-names.ts";
import { MemorySettingError } from "./errors.ts";
import type { Loaded } from "./load.ts";

/** Bytes of weights by stage. */
export type MemoryPlan = Readonly<Partial<Record<Stage, number>>>;

/** Bytes that a model takes at least: its weights, and one row under way, under default settings. */
export interface ModelPlan {
  readonly weights: MemoryPlan;
  readonly row: WorkingBytes;
}

type Environment = Readonly<Record<string, string | undefined>>;

/** The variable that says what an adapter has. */
export const memoryVariable = "BLIPFLEET_MEMORY";

/** A tree's weights without buffers: enough for programs to say what they need, and nothing that could be run. */
export function unloadedWeights<T extends NameTree>(tree: T): Loaded<T> {
  return unloaded(tree) as Loaded<T>;
}

function unloaded(tree: NameTree): unknown {
  if (isLeaf(tree)) return unloadedLeaf(tree);
  if (Array.isArray(tree)) return (tree as readonly NameTree[]).map(unloaded);
  return Object.fromEntries(Object.entries(tree).map(([name, part]) => [name, unloaded(part as NameTree)]));
}

function unloadedLeaf(leaf: NameLeaf | StackedNames): unknown {
  const tensor = (name: string, shape: readonly number[]): Tensor => {
    return { name, shape, type: "f32", storage: undefined, byteOffset: 0 };
  };
  if (leaf.kind === "linear" || leaf.kind === "stacked") {
    const parts = leaf.kind === "stacked" ? leaf.parts : [leaf];
    const { inputs, bias } = formOf(parts);
    const columns = columnsOf(parts);
    return { segments: [], bias: bias && tensor(bias.name, [columns]), inputs, columns };
  }
  if (leaf.kind === "norm") {
    return {
      gain: tensor(leaf.gain.name, leaf.gain.shape),
      bias: tensor(leaf.bias.name, leaf.bias.shape),
      eps: leaf.eps,
    };
  }
  if (leaf.kind === "rms-norm") return { gain: tensor(leaf.gain.name, leaf.gain.shape), eps: leaf.eps };
  if (leaf.kind === "picked") return tensor(leaf.stored.name, [leaf.picks.length, leaf.stored.shape[1] ?? 0]);
  if (leaf.kind === "grid") return tensor(leaf.stored.name, [1 + leaf.to ** 2, leaf.width]);
  return tensor(leaf.kind === "table" ? leaf.stored.name : leaf.name, leaf.shape);
}

/** One row of each program under way at a time: caches add up, scratch is shared. */
export function workingOf(programs: Readonly<Record<string, unknown>>): WorkingBytes {
  const each = Object.values(programs).map((program) => (program as RowProgram<never, unknown>).working?.());
  return {
    caches: each.reduce((sum, working) => sum + (working?.caches ?? 0), 0),
    scratch: each.reduce((most, working) => Math.max(most, working?.scratch ?? 0), 0),
  };
}

/** Bytes that may still be allocated, and why so many. */
export interface AvailableMemory {
  readonly bytes: number;
  readonly source: string;
}

/**
 * WebGPU does not tell how much memory a GPU has; BLIPFLEET_MEMORY can. A software adapter has what the machine has left, or
 * the control group of this process.
 * @returns null where nothing is known
 * @throws MemorySettingError
 */
export function availableMemory(
  { report, allocatedBytes }: Pick<Gpu, "report" | "allocatedBytes">,
  environment: Environment = process.env,
): AvailableMemory | null {
  const setting = environment[memoryVariable];
  if (setting) {
    const bytes = bytesOfSetting(setting);
    return {
      bytes: bytes - allocatedBytes,
      source: `${memoryVariable} ${setting}, ${bytesText(allocatedBytes)} in use`,
    };
  }
  if (!report.softwareAdapter) return null;
  const free = freeMemory();
  const limit = constrainedMemory();
  const { rss } = memoryUsage();
  // Without a limit Node reports none, or a number beyond every machine's memory.
  if (limit > 0 && limit - rss < free) {
    return { bytes: limit - rss, source: `of a control group's ${bytesText(limit)}, ${bytesText(rss)} in use` };
  }
  return { bytes: free, source: "what the machine has free" };
}

/** What can be had without swapping, file caches included. */
function freeMemory(): number {
  try {
    const [, kilobytes] = /^MemAvailable:\s+(\d+) kB$/m.exec(readFileSync("/proc/meminfo", "utf8")) ?? [];
    return kilobytes === undefined ? freemem() : Number(kilobytes) * 1024;
  } catch {
    return freemem();
  }
}

const units: Readonly<Record<string, number>> = {
  "": 1,
  k: 1e3,
  m: 1e6,
  g: 1e9,
  ki: 2 ** 10,
  mi: 2 ** 20,
  gi: 2 ** 30,
};

function bytesOfSetting(setting: string): number {
  const [, count, unit = ""] = /^(\d+(?:\.\d+)?)\s*([kmg]i?)?b?$/i.exec(setting.trim()) ?? [];
  const factor = units[unit.toLowerCase()];
  if (count !== undefined && factor !== undefined) return Math.floor(Number(count) * factor);
  throw new MemorySettingError(
    `${memoryVariable}: expected what the adapter has, as 24GB, 24GiB or a number of bytes, got ${JSON.stringify(setting)}`,
  );
}

/** Most significant digits that say something. */
export function bytesText(bytes: number): string {
  return Math.abs(bytes) >= 1e9 ? `${(bytes / 1e9).toFixed(2)} GB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

/** Every number of a plan, e.g. "weights encode 1.98 GB, generate 5.30 GB; a row's caches 22.3 MB, scratch 25.2 MB". */
export function planText({ weights, row }: ModelPlan): string {
  const parts = Object.entries(weights).map(([stage, bytes]) => `${stage} ${bytesText(bytes)}`);
  return `weights ${parts.join(", ")}; a row's caches ${bytesText(row.caches)}, scratch ${bytesText(row.scratch)}`;
}

/** Bytes of all weights. */
export function weightsTotal({ weights }: Pick<ModelPlan, "weights">): number {
  return Object.values(weights).reduce((sum, bytes) => sum + bytes, 0);
}

/** Bytes that a plan takes at least. */
export function planBytes(plan: ModelPlan): number {
  return weightsTotal(plan) + plan.row.caches + plan.row.scratch;
}

/** The types that take less memory and fit into so much, e.g. "--dtype int8 (4.39 GB) or int4 (2.62 GB)". The user chooses: texts may change. */
async function narrower(
  dtype: Dtype,
  planUnder: (dtype: Dtype) => Promise<ModelPlan | null>,
  available: number,
): Promise<{ readonly fitting: string | null; readonly least: string | null }> {
  const sizes: { readonly name: string; readonly bytes: number }[] = [];
  for (const other of dtypes.slice(dtypes.indexOf(dtype) + 1)) {
    const plan = await planUnder(other);
    if (plan !== null) sizes.push({ name: other, bytes: planBytes(plan) });
  }
  const text = ({ name, bytes }: { readonly name: string; readonly bytes: number }) => `${name} (${bytesText(bytes)})`;
  const fitting = sizes.filter(({ bytes }) => bytes <= available).map(text);
  const [least] = sizes.sort((a, b) => a.bytes - b.bytes).map(text);
  return { fitting: fitting.length === 0 ? null : `--dtype ${fitting.join(" or ")}`, least: least ?? null };
}

/**
 * Refuse what cannot fit before it is tried.
 * @param planUnder the plan of the same model under another type; null where it cannot have that type
 * @throws OutOfMemoryError with the plan's numbers, and what to do: which types would fit, and what they take; MemorySettingError
 */
export async function expectRoom(
  gpu: Pick<Gpu, "report" | "allocatedBytes">,
  { ref, dtype }: Pick<CheckpointCard, "ref" | "dtype">,
  plan: ModelPlan,
  planUnder: (dtype: Dtype) => Promise<ModelPlan | null>,
  environment?: Environment,
): Promise<void> {
  const available = availableMemory(gpu, environment);
  const needed = planBytes(plan);
  if (available === null || needed <= available.bytes) return;
  const { fitting, least } = await narrower(dtype, planUnder, available.bytes);
  const stages = Object.values(plan.weights);
  const ways = [
    ...(fitting === null ? [] : [fitting]),
    ...(stages.length > 1 && Math.max(...stages) <= available.bytes
      ? ["workers for one of its stages each (--stages)"]
      : []),
    "a smaller model",
  ];
  const none = fitting === null && least !== null ? `no smaller --dtype fits, the least is ${least}; ` : "";
  throw new OutOfMemoryError(
    `${ref}: expected at most ${bytesText(Math.max(0, available.bytes))} on ${adapterLine(gpu.report)} (${available.source}), ` +
      `got ${bytesText(needed)} under --dtype ${dtype}: ${planText(plan)}; ${none}use ${ways.join(", or ")}`,
  );
}
