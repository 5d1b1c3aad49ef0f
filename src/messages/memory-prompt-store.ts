// The prompt store inside one process: the twin of the JetStream store for the local mode, with the same answers.

import { PromptStoreError } from "./errors.ts";
import { promptSubject } from "./prompt-key.ts";
import { formText, fromMessage, type PromptMessage, toMessage } from "./prompt-message.ts";
import type { PromptStore } from "./prompt-store.ts";

export interface MemoryPromptStoreOptions {
  /** Most bytes of bodies to hold; the oldest go first. Default: no limit. */
  readonly maxBytes?: number;
  /** Largest body to accept, as a server's payload limit would. Default: no limit. */
  readonly maxMessageBytes?: number;
}

/** The store, and for tests its messages by subject (oldest first). */
export interface MemoryPromptStore extends PromptStore {
  readonly messages: Map<string, PromptMessage>;
}

/** A prompt store in this process's memory. Bodies are copied on put and on get, so callers may reuse theirs. */
export function memoryPromptStore(options: MemoryPromptStoreOptions = {}): MemoryPromptStore {
  const maxBytes = options.maxBytes ?? Number.POSITIVE_INFINITY;
  const maxMessageBytes = Math.min(options.maxMessageBytes ?? Number.POSITIVE_INFINITY, maxBytes);
  const messages = new Map<string, PromptMessage>();
  let held = 0;

  const refuse = (what: string, bytes: number): PromptStoreError =>
    new PromptStoreError(
      `prompt store in memory: expected ${what} of at most ${maxMessageBytes} bytes, got ${bytes}; raise its byte limit`,
    );

  return {
    messages,
    async get(key, expected) {
      const message = messages.get(promptSubject(key));
      if (message === undefined) return { miss: "absent" };
      return fromMessage(key, { headers: message.headers, bytes: message.bytes.slice() }, expected);
    },
    async has(key) {
      return messages.has(promptSubject(key));
    },
    async put(key, activation, { overwrite = false } = {}) {
      const subject = promptSubject(key);
      const message = toMessage(key, activation, `memory of process ${process.pid}`);
      if (message.bytes.byteLength > maxMessageBytes) throw refuse(formText(activation), message.bytes.byteLength);
      if (messages.has(subject) && !overwrite) return;
      held += message.bytes.byteLength - (messages.get(subject)?.bytes.byteLength ?? 0);
      messages.delete(subject);
      messages.set(subject, { headers: message.headers, bytes: message.bytes.slice() });
      // A map keeps insertion order, so its first entries are the oldest.
      for (const [oldest, { bytes }] of messages) {
        if (held <= maxBytes) break;
        messages.delete(oldest);
        held -= bytes.byteLength;
      }
    },
    async checkPlan({ activationBytes, inFlight = 1 }) {
      if (activationBytes > maxMessageBytes) throw refuse("activations", activationBytes);
      if (activationBytes * inFlight > maxBytes / 2) {
        throw new PromptStoreError(
          `prompt store in memory: expected at most ${maxBytes / 2} bytes in flight (half of its limit), ` +
            `got ${inFlight} activations of ${activationBytes} bytes; use a smaller window or chunk, or raise its byte limit`,
        );
      }
    },
    async close() {
      messages.clear();
      held = 0;
    },
  };
}
