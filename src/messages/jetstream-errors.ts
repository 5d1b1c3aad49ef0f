// What the JetStream client's errors mean for a cache.

import { JetStreamApiError } from "@nats-io/jetstream";
import { errors } from "@nats-io/transport-node";

/**
 * 5xx answers that stay the same until somebody changes a setting: not enough storage (10047) or memory (10028) for the
 * stream's max_bytes, a message above max_msg_size (10054) or max_bytes (10077).
 */
export const refusals: ReadonlySet<number> = new Set([10028, 10047, 10054, 10077]);

/** JetStream's code for "the subject's last sequence is not the expected one": the key exists already. */
export const wrongLastSequence = 10071;

/** JetStream's code for "there is a stream of this name with another configuration". */
export const otherConfiguration = 10058;

/** The stream does not exist; it is created again and nobody hears of it. */
export class StreamGoneError extends Error {
  override readonly name = "StreamGoneError";
}

/** By name: the client does not export this class. Its cause is an API error when the server said so itself. */
export function isJetStreamNotEnabled(error: unknown): error is Error {
  return error instanceof Error && error.name === "JetStreamNotEnabled";
}

export function isApiError(error: unknown, code: number): error is JetStreamApiError {
  return error instanceof JetStreamApiError && error.code === code;
}

/**
 * True when nobody answers for the stream: direct gets and publishes to a stream that is not there find no listener, the
 * API says 10059. (A server without JetStream at all is told apart by its own greeting.)
 */
export function isStreamGone(error: unknown): boolean {
  if (error instanceof JetStreamApiError) return error.code === 10059;
  const wrapped = isJetStreamNotEnabled(error) ? error.cause : error;
  return (
    wrapped instanceof errors.NoRespondersError || (wrapped instanceof errors.RequestError && wrapped.isNoResponders())
  );
}
