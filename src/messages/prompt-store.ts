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

/** What a reader expects of an activation, known from the model's card before a byte is read. */
export type ActivationForm = Pick<Activation, "kind" | "type" | "shape">;

/** What a run will ask of the store, checked before it starts. */
export interface PromptPlan {
  /** Bytes of the largest activation. */
  readonly activationBytes: number;
  /** Most activations that must be held at once: items a chunk times chunks in flight. Left out: not checked. */
  readonly inFlight?: number;
}

export interface PromptStore {
  /**
   * The verified activation, or why there is none. Checksum, key, digest, kind, dtype and shape are checked on every
   * read: against one another always, against what the reader needs when it says so in `expected` (callers should).
   * @throws PromptStoreUnavailableError when the store does not answer in time; retry later.
   */
  get(key: PromptKey, expected?: ActivationForm): Promise<Activation | { readonly miss: MissReason }>;
  /**
   * True when a message with this key is there; its body is not read.
   * @throws PromptStoreUnavailableError
   */
  has(key: PromptKey): Promise<boolean>;
  /**
   * Publish. Create-once by default (a key that exists already is success); `overwrite` after a bad read.
   * @throws PromptStoreError when the store refuses it (payload limit: both numbers and the setting are named).
   * @throws PromptStoreUnavailableError
   */
  put(key: PromptKey, activation: Activation, options?: { readonly overwrite?: boolean }): Promise<void>;
  /**
   * Check a run's plan against the store's limits. Cheap; call it at start-up.
   * @throws PromptStoreError naming the number needed, the limit, and the setting that moves it.
   */
  checkPlan(plan: PromptPlan): Promise<void>;
  close(): Promise<void>;
}
