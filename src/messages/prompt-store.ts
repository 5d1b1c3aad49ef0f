// The prompt store: a cache of activations that every worker shares. Never the truth; a miss is a normal answer.

import type { Activation } from "../stages.ts";

/** Names one activation. Equal keys mean equal bytes. */
export interface PromptKey {
  /** Hex SHA-256 of the checkpoint (ModelCard.digest). */
  readonly modelDigest: string;
  /** Hex SHA-256 over all else that the bytes depend on; see promptKey(). */
  readonly key: string;
}

/** Why get() has nothing to return. `corrupt` and `foreign` were found in the store but must not be used. */
export type MissReason = "absent" | "corrupt" | "foreign";

export interface PromptStore {
  /** The verified activation, or why there is none. Checksum, digest, kind, dtype and shape are checked on every read. */
  get(key: PromptKey): Promise<Activation | { readonly miss: MissReason }>;
  /** True when a message with this key is there; its body is not read. */
  has(key: PromptKey): Promise<boolean>;
  /**
   * Publish. Create-once by default (a key that exists already is success); `overwrite` after a bad read.
   * @throws PromptStoreError when the store refuses it (payload limit: both numbers and the setting are named).
   */
  put(key: PromptKey, activation: Activation, options?: { readonly overwrite?: boolean }): Promise<void>;
  close(): Promise<void>;
}
