// How a stream that exists differs from the one that we would create.

import type { StreamConfig } from "@nats-io/jetstream";

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
