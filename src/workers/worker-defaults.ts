// What a worker does where its options do not say; the command's help names the same numbers.

export const workerDefaults = {
  /** Of /metrics, /healthz and /readyz. */
  metricsPort: 9464,
  /** Batch activities of one stage at a time. */
  batchSlots: 2,
  /** Answers of one stage at a time. */
  nowSlots: 4,
  /** Seconds that activities have to end after a stop. */
  graceSeconds: 60,
} as const;
