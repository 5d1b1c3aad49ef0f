// The stream that holds the prompts: what we create, and how one that exists may differ.

import { DiscardPolicy, RetentionPolicy, StorageType, type StreamConfig } from "@nats-io/jetstream";

export interface JetStreamPromptStoreOptions {
  /** Name of the stream. Default BLIPFLEET_PROMPTS. */
  readonly stream?: string;
  /** Bytes that the stream may hold; the oldest prompts go first. Default 1 GiB. */
  readonly maxBytes?: number;
  /** Seconds that a prompt is kept. Default one day. */
  readonly maxAgeSeconds?: number;
  /** Default file: prompts are shared across jobs. */
  readonly storage?: "file" | "memory";
  /** Copies in a cluster. Default 1: a lost prompt is encoded again. */
  readonly replicas?: number;
  /** Milliseconds that one call may take, waiting for a reconnection included. Default 5000. */
  readonly timeoutMs?: number;
  /** Goes into the messages, for people. Default: this process's id. */
  readonly producer?: string;
}

/** The stream's settings when the options leave them out. */
export const defaults = {
  stream: "BLIPFLEET_PROMPTS",
  maxBytes: 1024 ** 3,
  maxAgeSeconds: 24 * 3600,
  storage: "file",
  replicas: 1,
  timeoutMs: 5000,
} as const;

/** The stream to create. Nothing newer than nats-server 2.9 is asked for. */
export function wantedConfig(options: JetStreamPromptStoreOptions): Pick<StreamConfig, "name"> & Partial<StreamConfig> {
  return {
    name: options.stream ?? defaults.stream,
    description: "Visual prompts of BlipFleet: a cache, safe to delete",
    subjects: ["blipfleet.prompt.*.*"],
    retention: RetentionPolicy.Limits,
    storage: (options.storage ?? defaults.storage) === "memory" ? StorageType.Memory : StorageType.File,
    max_msgs_per_subject: 1,
    discard: DiscardPolicy.Old,
    max_bytes: options.maxBytes ?? defaults.maxBytes,
    max_age: (options.maxAgeSeconds ?? defaults.maxAgeSeconds) * 1e9, // ns
    duplicate_window: Math.min(30, options.maxAgeSeconds ?? defaults.maxAgeSeconds) * 1e9, // ns; unused, kept small
    num_replicas: options.replicas ?? defaults.replicas,
    allow_direct: true,
  };
}

/** Differences that make the stream unusable as a prompt cache. */
export function structuralDrift(found: StreamConfig, wanted: Partial<StreamConfig>): string[] {
  const subjects = (wanted.subjects ?? []).filter((subject) => !(found.subjects ?? []).includes(subject));
  return [
    ...subjects.map((subject) => `no subject ${subject}`),
    ...differences(found, wanted, ["retention", "max_msgs_per_subject", "discard", "allow_direct"]),
    ...(found.mirror === undefined || found.mirror === null ? [] : [`a mirror of ${found.mirror.name}`]),
  ];
}

/** Differences that an operator may have wanted: limits, storage, replicas. */
export function tunableDrift(found: StreamConfig, wanted: Partial<StreamConfig>): string[] {
  return differences(found, wanted, ["max_bytes", "max_age", "storage", "num_replicas", "max_msg_size", "max_msgs"]);
}

function differences(
  found: StreamConfig,
  wanted: Partial<StreamConfig>,
  names: readonly (keyof StreamConfig)[],
): string[] {
  return names.flatMap((name) => {
    const want = wanted[name];
    const have = found[name];
    if (want === undefined || want === have) return [];
    return [`${name} ${JSON.stringify(have)} instead of ${JSON.stringify(want)}`];
  });
}
