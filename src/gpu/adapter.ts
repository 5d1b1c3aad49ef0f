// Which adapter runs the kernels, with which features and limits; refused early when it could not give right answers.

import { create, globals } from "webgpu";
import { AdapterError } from "./errors.ts";

Object.assign(globalThis, globals);

/** A kind of subgroup matrix: (M, K) times (K, N), both of `input`, added to (M, N) of `result`. */
export interface MatrixShape {
  readonly M: number;
  readonly N: number;
  readonly K: number;
  readonly input: string;
  readonly result: string;
}

/** Everything worth knowing about the adapter and device in use; plain JSON, for doctor, logs and bench files. */
export interface AdapterReport {
  readonly vendor: string;
  readonly architecture: string;
  readonly device: string;
  /** Driver name and version as the driver tells it. */
  readonly description: string;
  /** A CPU Vulkan driver (lavapipe, SwiftShader) rather than a GPU. */
  readonly softwareAdapter: boolean;
  readonly subgroupMinSize: number;
  readonly subgroupMaxSize: number;
  readonly features: readonly string[];
  /** What subgroup matrices (tensor cores) it multiplies; empty without that feature. */
  readonly matrices: readonly MatrixShape[];
  /** What was requested of the device, not the specification's defaults. */
  readonly limits: Readonly<Record<string, number>>;
  readonly toggles: readonly string[];
}

/** Limits that kernels and weights depend on; each is requested at the adapter's maximum. */
const wantedLimits = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxUniformBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
  "maxComputeWorkgroupSizeY",
  "maxComputeWorkgroupSizeZ",
  "maxComputeWorkgroupsPerDimension",
  "minStorageBufferOffsetAlignment",
  "minUniformBufferOffsetAlignment",
] as const;

const wantedFeatures = ["shader-f16", "subgroups", "timestamp-query", "chromium-experimental-subgroup-matrix"];

/** Dawn crashes at the next garbage collection once the object that create() returned is unreachable. */
const anchors = new Map<string, GPU>();

function instance(toggles: readonly string[]): GPU {
  const key = toggles.join(",");
  const known = anchors.get(key);
  if (known) return known;
  const made = create(toggles.length > 0 ? [`enable-dawn-features=${key}`] : []);
  anchors.set(key, made);
  return made;
}

const nextStep = "run `npm run setup` for a software driver, or `blipfleet doctor` to see what is installed";

/**
 * The first usable adapter and what device to ask of it.
 * @param validation false leaves out Dawn's checks of every call; shaders are still checked.
 * @throws AdapterError no adapter, or the null backend, which accepts work and runs nothing.
 */
export async function findAdapter(validation: boolean): Promise<{ adapter: GPUAdapter; report: AdapterReport }> {
  const toggles = ["allow_unsafe_apis", "vulkan_enable_f16_on_nvidia", ...(validation ? [] : ["skip_validation"])];
  const adapter = await instance(toggles).requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) throw new AdapterError(`adapter: expected a Vulkan, Metal or D3D12 driver, found none; ${nextStep}`);
  const { info } = adapter;
  expectComputing(info);
  expectSubgroups(info, adapter.features);
  const limits: Record<string, number> = {};
  for (const name of wantedLimits) limits[name] = adapter.limits[name];
  const report: AdapterReport = {
    vendor: info.vendor,
    architecture: info.architecture,
    device: info.device,
    description: info.description,
    softwareAdapter: info.isFallbackAdapter,
    subgroupMinSize: info.subgroupMinSize ?? 1,
    subgroupMaxSize: info.subgroupMaxSize ?? 1,
    features: wantedFeatures.filter((name) => adapter.features.has(name)),
    matrices: matricesOf(info),
    limits,
    toggles,
  };
  return { adapter, report };
}

/** Dawn's list, which the types of WebGPU do not know. */
function matricesOf(info: GPUAdapterInfo & { readonly subgroupMatrixConfigs?: unknown }): MatrixShape[] {
  const configs = (info.subgroupMatrixConfigs ?? []) as readonly {
    readonly M: number;
    readonly N: number;
    readonly K: number;
    readonly componentType: string;
    readonly resultComponentType: string;
  }[];
  return configs.map(({ M, N, K, componentType, resultComponentType }) => ({
    ...{ M, N, K },
    input: componentType,
    result: resultComponentType,
  }));
}

/**
 * Dawn's null backend, which it offers where no driver is found, has no vendor. It accepts all work and runs none.
 * @throws AdapterError
 */
export function expectComputing(info: GPUAdapterInfo): void {
  if (info.vendor !== "") return;
  throw new AdapterError(
    `adapter: expected one that computes, found only ${JSON.stringify(info.device)}, which runs nothing; ${nextStep}`,
  );
}

/** Products let the invocations of a subgroup share what they load. @throws AdapterError */
export function expectSubgroups(info: GPUAdapterInfo, features: { has(name: string): boolean }): void {
  if (features.has("subgroups")) return;
  throw new AdapterError(
    `adapter: expected one with subgroups, got ${info.vendor} ${info.device} (${info.description}) without; ` +
      "a newer driver may have them, or `npm run setup` for a software driver",
  );
}

/** One line that names an adapter, for errors and logs. */
export function adapterLine(report: AdapterReport): string {
  const subgroup =
    report.subgroupMinSize === report.subgroupMaxSize
      ? `${report.subgroupMinSize}`
      : `${report.subgroupMinSize}-${report.subgroupMaxSize}`;
  return `${report.vendor} ${report.device} (${report.description}), subgroup ${subgroup}`;
}
