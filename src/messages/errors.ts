// What can go wrong between a worker and NATS. The class says whether trying again can help.

/** The store refuses by its configuration or by the message's size: the same call fails again until somebody acts. */
export class PromptStoreError extends Error {
  override readonly name = "PromptStoreError";
}

/** NATS does not answer at the moment: down, restarting, or too slow. Retry later. */
export class PromptStoreUnavailableError extends Error {
  override readonly name = "PromptStoreUnavailableError";
}

/** The settings of the NATS connection cannot work: bad URL, unreadable file, refused credentials. */
export class NatsConfigError extends Error {
  override readonly name = "NatsConfigError";
}

/** No server answers at the configured address. Retry later, or start one. */
export class NatsUnavailableError extends Error {
  override readonly name = "NatsUnavailableError";
}

/** The message of anything thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
