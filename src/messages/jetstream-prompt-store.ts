// The prompt store over NATS JetStream: one stream, one message per prompt, the oldest evicted when it is full.
//
// The stream is a cache. It may lose anything at any time (eviction, age, a server that restarted empty), so every read
// is verified and every miss is an answer. Calls are bounded in time; when NATS is away they say so and may be retried.

import {
  DiscardPolicy,
  JetStreamApiError,
  type JetStreamClient,
  type JetStreamManager,
  jetstream,
  jetstreamManager,
  RetentionPolicy,
  StorageType,
  type StreamConfig,
} from "@nats-io/jetstream";
import { errors, headers, type MsgHdrs, type NatsConnection } from "@nats-io/transport-node";
import type { Activation } from "../stages.ts";
import { messageOf, PromptStoreError, PromptStoreUnavailableError } from "./errors.ts";
import { promptSubject } from "./prompt-key.ts";
import { formText, fromMessage, headerNames, toMessage } from "./prompt-message.ts";
import type { ActivationForm, MissReason, PromptKey, PromptPlan, PromptStore } from "./prompt-store.ts";
import { structuralDrift, tunableDrift } from "./stream-drift.ts";

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

/** Settings of the stream that a job's window is computed from. */
export interface PromptLimits {
  /** Largest message of the server, headers included, in bytes. */
  readonly maxPayload: number;
  /** Bytes that the stream holds. */
  readonly maxBytes: number;
}

const defaults = {
  stream: "BLIPFLEET_PROMPTS",
  maxBytes: 1024 ** 3,
  maxAgeSeconds: 24 * 3600,
  storage: "file",
  replicas: 1,
  timeoutMs: 5000,
} as const;

/** Room for the headers of any prompt, in bytes; theirs are about 600. */
const headerAllowance = 2048;

/**
 * 5xx answers that stay the same until somebody changes a setting: not enough storage (10047) or memory (10028) for the
 * stream's max_bytes, a message above max_msg_size (10054) or max_bytes (10077).
 */
const refusals: ReadonlySet<number> = new Set([10028, 10047, 10054, 10077]);

/** JetStream's code for "the subject's last sequence is not the expected one": the key exists already. */
const wrongLastSequence = 10071;

/**
 * Open the store: create its stream if it is absent, compare its configuration if it is there.
 * The connection stays the caller's; close() of the store leaves it open.
 * @throws PromptStoreError when the server is too old, has no JetStream, or the stream is one that cannot serve.
 * @throws PromptStoreUnavailableError when NATS does not answer.
 */
export async function openJetStreamPromptStore(
  connection: NatsConnection,
  options: JetStreamPromptStoreOptions = {},
): Promise<JetStreamPromptStore> {
  expectVersion(connection);
  const timeout = options.timeoutMs ?? defaults.timeoutMs;
  // checkAPI off: the first call is ours, so that its errors are ours as well.
  const manager = await jetstreamManager(connection, { timeout, checkAPI: false });
  const store = new JetStreamPromptStore(connection, manager, jetstream(connection, { timeout }), options);
  await store.ready();
  return store;
}

export class JetStreamPromptStore implements PromptStore {
  /** Differences between the stream found and the one asked for that do no harm but may surprise; for the log. */
  drift: readonly string[] = [];

  readonly #connection: NatsConnection;
  readonly #manager: JetStreamManager;
  readonly #client: JetStreamClient;
  readonly #wanted: Pick<StreamConfig, "name"> & Partial<StreamConfig>;
  readonly #timeoutMs: number;
  readonly #producer: string;
  #preparing: Promise<void> | undefined;
  #disconnectedSince: number | undefined;
  #reconnected: { readonly promise: Promise<void>; readonly resolve: () => void } = deferred();
  #closed = false;

  constructor(
    connection: NatsConnection,
    manager: JetStreamManager,
    client: JetStreamClient,
    options: JetStreamPromptStoreOptions,
  ) {
    this.#connection = connection;
    this.#manager = manager;
    this.#client = client;
    this.#timeoutMs = options.timeoutMs ?? defaults.timeoutMs;
    this.#producer = options.producer ?? `blipfleet process ${process.pid}`;
    this.#wanted = wantedConfig(options);
    void this.#watchConnection();
  }

  async get(key: PromptKey, expected?: ActivationForm): Promise<Activation | { readonly miss: MissReason }> {
    const subject = promptSubject(key);
    const stored = await this.#call("get", () =>
      this.#manager.direct.getMessage(this.#wanted.name, { last_by_subj: subject }),
    );
    if (stored === null) return { miss: "absent" };
    return fromMessage(key, { headers: headerRecord(stored.header), bytes: stored.data }, expected);
  }

  async has(key: PromptKey): Promise<boolean> {
    const subject = promptSubject(key);
    // Direct get has no form without the body; the stream's own count of one subject does not touch it.
    const info = await this.#call("has", () =>
      this.#manager.streams.info(this.#wanted.name, { subjects_filter: subject }),
    );
    return (info.state.subjects?.[subject] ?? 0) > 0;
  }

  async put(
    key: PromptKey,
    activation: Activation,
    { overwrite = false }: { readonly overwrite?: boolean } = {},
  ): Promise<void> {
    const subject = promptSubject(key);
    const message = toMessage(key, activation, this.#producer);
    this.#expectPayload(formText(activation), message.bytes.byteLength + headerBytes(message.headers));
    try {
      await this.#call("put", () =>
        this.#client.publish(subject, message.bytes, {
          headers: natsHeaders(message.headers),
          timeout: this.#timeoutMs,
          expect: { streamName: this.#wanted.name, ...(overwrite ? {} : { lastSubjectSequence: 0 }) },
        }),
      );
    } catch (error) {
      if (!overwrite && isApiError(error, wrongLastSequence)) return;
      throw error;
    }
  }

  async checkPlan({ activationBytes, inFlight = 1 }: PromptPlan): Promise<void> {
    this.#expectPayload("activations", activationBytes + headerAllowance);
    const { maxBytes } = await this.limits();
    if ((activationBytes + headerAllowance) * inFlight > maxBytes / 2) {
      throw new PromptStoreError(
        `prompt store: expected at most ${Math.floor(maxBytes / 2)} bytes in flight (half of max_bytes of stream ` +
          `${this.#wanted.name}), got ${inFlight} activations of ${activationBytes} bytes; ` +
          "use a smaller window or chunk, or raise the stream's max_bytes",
      );
    }
  }

  /** The server's and the stream's limits as they are now. */
  async limits(): Promise<PromptLimits> {
    const info = await this.#call("limits", () => this.#manager.streams.info(this.#wanted.name));
    const maxBytes = info.config.max_bytes;
    return { maxPayload: this.#maxPayload(), maxBytes: maxBytes > 0 ? maxBytes : Number.POSITIVE_INFINITY };
  }

  /** Create or compare the stream. Done by open, and again when the stream is found to be gone. */
  async ready(): Promise<void> {
    this.#preparing ??= this.#bounded("open", () => this.#prepareStream()).finally(() => {
      this.#preparing = undefined;
    });
    await this.#preparing;
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#reconnected.resolve();
  }

  async #prepareStream(): Promise<void> {
    try {
      await this.#manager.streams.add({ ...this.#wanted });
      this.drift = [];
      return;
    } catch (error) {
      // 10058: there is one with another configuration. Anything else is a real failure.
      if (!isApiError(error, 10058)) throw error;
    }
    const { config } = await this.#manager.streams.info(this.#wanted.name);
    const broken = structuralDrift(config, this.#wanted);
    if (broken.length > 0) {
      throw new PromptStoreError(
        `prompt store: expected stream ${this.#wanted.name} to be a prompt cache, got ${broken.join("; ")}; ` +
          "delete or rename that stream, or name another one",
      );
    }
    this.drift = tunableDrift(config, this.#wanted);
  }

  /** Run one call; when the stream has vanished (a server that came back empty), create it and run once more. */
  async #call<T>(what: string, run: () => Promise<T>): Promise<T> {
    try {
      return await this.#bounded(what, run);
    } catch (error) {
      if (!(error instanceof StreamGoneError)) throw error;
      await this.ready();
      try {
        return await this.#bounded(what, run);
      } catch (again) {
        if (!(again instanceof StreamGoneError)) throw again;
        throw this.#unavailable(what, "no stream although it was just created", again);
      }
    }
  }

  /** Wait for the connection within the time limit, run, and turn the client's errors into ours. */
  async #bounded<T>(what: string, run: () => Promise<T>): Promise<T> {
    await this.#expectConnection(what);
    try {
      return await run();
    } catch (error) {
      throw this.#translate(what, error);
    }
  }

  async #expectConnection(what: string): Promise<void> {
    if (this.#closed) throw new PromptStoreError(`prompt store: expected an open store, got ${what} after close()`);
    if (this.#connection.isClosed()) throw this.#unavailable(what, "a closed connection");
    if (this.#disconnectedSince === undefined) return;
    const timer = timeoutAfter(this.#timeoutMs);
    await Promise.race([this.#reconnected.promise, timer.promise]);
    timer.clear();
    if (this.#disconnectedSince !== undefined) {
      const seconds = ((Date.now() - this.#disconnectedSince) / 1000).toFixed(1);
      throw this.#unavailable(what, `no connection for ${seconds} s`);
    }
  }

  #translate(what: string, error: unknown): Error {
    if (error instanceof PromptStoreError || error instanceof PromptStoreUnavailableError) return error;
    if (isStreamGone(error)) return new StreamGoneError(messageOf(error), { cause: error });
    // The caller of put() looks at the code, so these pass as they are.
    if (isApiError(error, wrongLastSequence) || isApiError(error, 10058)) return error;
    if (isJetStreamNotEnabled(error)) {
      const permanent = error.cause instanceof JetStreamApiError;
      if (!permanent) return this.#unavailable(what, "no answer from JetStream (starting, or not enabled)", error);
      return new PromptStoreError(
        `prompt store: expected JetStream at ${this.#server()}, got ${error.message}; ` +
          "enable it in the server's configuration (jetstream { store_dir: … }) and for this account",
        { cause: error },
      );
    }
    if (error instanceof JetStreamApiError && (error.status < 500 || refusals.has(error.code))) {
      return new PromptStoreError(
        `prompt store: expected ${what} to be accepted by stream ${this.#wanted.name}, got ${error.message} (code ${error.code})`,
        { cause: error },
      );
    }
    if (error instanceof errors.PermissionViolationError || error instanceof errors.AuthorizationError) {
      return new PromptStoreError(
        `prompt store: expected the permission to ${what} at ${this.#server()}, got ${error.message}`,
        { cause: error },
      );
    }
    return this.#unavailable(what, messageOf(error), error);
  }

  #unavailable(what: string, got: string, cause?: unknown): PromptStoreUnavailableError {
    return new PromptStoreUnavailableError(
      `prompt store: expected NATS at ${this.#server()} to answer ${what} within ${this.#timeoutMs} ms, got ${got}; ` +
        "it is tried again when the server is back",
      { cause },
    );
  }

  #expectPayload(what: string, bytes: number): void {
    const limit = this.#maxPayload();
    if (bytes <= limit) return;
    throw new PromptStoreError(
      `prompt store: expected messages of at most ${limit} bytes (max_payload of nats-server at ${this.#server()}), ` +
        `got ${bytes} for ${what} with headers; set max_payload to ${Math.ceil(bytes / 2 ** 20)}MB or more in the server's configuration file`,
    );
  }

  #maxPayload(): number {
    return this.#connection.info?.max_payload ?? 2 ** 20;
  }

  #server(): string {
    return this.#connection.getServer();
  }

  async #watchConnection(): Promise<void> {
    for await (const status of this.#connection.status()) {
      if (this.#closed) return;
      if (status.type === "disconnect" && this.#disconnectedSince === undefined) {
        this.#disconnectedSince = Date.now();
        this.#reconnected = deferred();
      } else if (status.type === "reconnect") {
        this.#disconnectedSince = undefined;
        this.#reconnected.resolve();
      }
    }
  }
}

/** The stream does not exist; never leaves this file. */
class StreamGoneError extends Error {
  override readonly name = "StreamGoneError";
}

/** nats-server 2.9 (Debian 12) has all that is used here; nothing newer is asked of a server. */
function expectVersion(connection: NatsConnection): void {
  const version = connection.info?.version ?? "";
  const [major = 0, minor = 0] = version.split(".").map(Number);
  if (major > 2 || (major === 2 && minor >= 9)) return;
  throw new PromptStoreError(
    `prompt store: expected nats-server 2.9 or newer at ${connection.getServer()}, got ${version || "no version"}`,
  );
}

function wantedConfig(options: JetStreamPromptStoreOptions): Pick<StreamConfig, "name"> & Partial<StreamConfig> {
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

/** By name: the client does not export this class. Its cause is an API error when the server said so itself. */
function isJetStreamNotEnabled(error: unknown): error is Error {
  return error instanceof Error && error.name === "JetStreamNotEnabled";
}

function isApiError(error: unknown, code: number): error is JetStreamApiError {
  return error instanceof JetStreamApiError && error.code === code;
}

/** Direct gets and publishes to a stream that is not there find nobody listening; the API says 10059. */
function isStreamGone(error: unknown): boolean {
  if (error instanceof JetStreamApiError) return error.code === 10059;
  if (isJetStreamNotEnabled(error)) return false;
  return error instanceof errors.NoRespondersError || (error instanceof errors.RequestError && error.isNoResponders());
}

function headerRecord(from: MsgHdrs): Record<string, string> {
  return Object.fromEntries(Object.values(headerNames).map((name) => [name, from.get(name)]));
}

function natsHeaders(record: Readonly<Record<string, string>>): MsgHdrs {
  const result = headers();
  for (const [name, value] of Object.entries(record)) result.set(name, value);
  return result;
}

/** Bytes that the headers take on the wire, the two that a create-once publish adds included. */
function headerBytes(record: Readonly<Record<string, string>>): number {
  const ours = Object.entries(record).reduce((sum, [name, value]) => sum + name.length + value.length + 4, 0);
  return ours + 256;
}

function deferred(): { promise: Promise<void>; resolve: () => void } {
  let resolve: () => void = () => undefined;
  const promise = new Promise<void>((done) => {
    resolve = done;
  });
  return { promise, resolve };
}

function timeoutAfter(ms: number): { promise: Promise<void>; clear: () => void } {
  const { promise, resolve } = deferred();
  const timer = setTimeout(resolve, ms);
  return { promise, clear: () => clearTimeout(timer) };
}
