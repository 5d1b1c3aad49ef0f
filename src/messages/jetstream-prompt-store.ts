// The prompt store over NATS JetStream: one stream, one message per prompt, the oldest evicted when it is full.
//
// The stream is a cache. It may lose anything at any time (eviction, age, a server that restarted empty), so every read
// is verified and every miss is an answer. Calls are bounded in time; when NATS is away they say so and may be retried.

import {
  JetStreamApiError,
  type JetStreamClient,
  type JetStreamManager,
  jetstream,
  jetstreamManager,
  type StreamConfig,
} from "@nats-io/jetstream";
import { errors, headers, type MsgHdrs, type NatsConnection } from "@nats-io/transport-node";
import type { Activation } from "../stages.ts";
import { messageOf, PromptStoreError, PromptStoreUnavailableError } from "./errors.ts";
import {
  isApiError,
  isJetStreamNotEnabled,
  isStreamGone,
  otherConfiguration,
  refusals,
  StreamGoneError,
  wrongLastSequence,
} from "./jetstream-errors.ts";
import { promptSubject } from "./prompt-key.ts";
import { formText, fromMessage, headerNames, toMessage } from "./prompt-message.ts";
import type { ActivationForm, MissReason, PromptKey, PromptPlan, PromptStore } from "./prompt-store.ts";
import {
  defaults,
  type JetStreamPromptStoreOptions,
  structuralDrift,
  tunableDrift,
  wantedConfig,
} from "./stream-config.ts";

/** Settings of the stream that a job's window is computed from. */
export interface PromptLimits {
  /** Largest message of the server, headers included, in bytes. */
  readonly maxPayload: number;
  /** Bytes that the stream holds. */
  readonly maxBytes: number;
}

/** Room for the headers of any prompt, in bytes; theirs are about 600. */
const headerAllowance = 2048;

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
  /** The stream may be gone: the server was away, or did not answer. The next call looks before it asks. */
  #streamInDoubt = false;
  /** What to call when the connection breaks, one for each call under way. */
  readonly #underWay = new Set<() => void>();
  /** Resolved while there is one, after the first time that there was none. */
  #reconnected = deferred();
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
    // The client's bytes are a piece of what came from the socket: copied, they are aligned and hold nothing else.
    const bytes = new Uint8Array(stored.data);
    return fromMessage(key, { headers: headerRecord(stored.header), bytes }, expected);
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
    this.#preparing ??= this.#bounded("open", () => this.#prepareStream())
      .catch((error: unknown) => {
        if (error instanceof StreamGoneError) {
          throw this.#unavailable("open", "no answer from JetStream, which may be starting", error);
        }
        throw error;
      })
      .finally(() => {
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
      this.#streamInDoubt = false;
      this.drift = [];
      return;
    } catch (error) {
      // there is one with another configuration. Anything else is a real failure.
      if (!isApiError(error, otherConfiguration)) throw error;
    }
    const { config } = await this.#manager.streams.info(this.#wanted.name);
    const broken = structuralDrift(config, this.#wanted);
    if (broken.length > 0) {
      throw new PromptStoreError(
        `prompt store: expected stream ${this.#wanted.name} to be a prompt cache, got ${broken.join("; ")}; ` +
          "delete or rename that stream, or name another one",
      );
    }
    this.#streamInDoubt = false;
    this.drift = tunableDrift(config, this.#wanted);
  }

  /** Run one call; when the stream has vanished (a server that came back empty), create it and run once more. */
  async #call<T>(what: string, run: () => Promise<T>): Promise<T> {
    if (this.#streamInDoubt) await this.ready();
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

  /**
   * Wait for the connection, run, and turn the client's errors into ours, all within the time limit. What was under way
   * when the connection broke is run again: every call here may be repeated.
   */
  async #bounded<T>(what: string, run: () => Promise<T>): Promise<T> {
    const deadline = Date.now() + this.#timeoutMs;
    for (;;) {
      await this.#expectConnection(what, deadline);
      try {
        const first = await this.#unlessDisconnected(run);
        if (first !== undefined) return first.value;
      } catch (error) {
        if (this.#disconnectedSince === undefined) throw this.#translate(what, error);
      }
      if (Date.now() > deadline) throw this.#unavailable(what, "a connection that broke while it answered");
    }
  }

  /** What `run` gives, or undefined as soon as the connection breaks. */
  #unlessDisconnected<T>(run: () => Promise<T>): Promise<{ readonly value: T } | undefined> {
    return new Promise((resolve, reject) => {
      const giveUp = () => resolve(undefined);
      this.#underWay.add(giveUp);
      run()
        .then((value) => resolve({ value }), reject)
        .finally(() => this.#underWay.delete(giveUp));
    });
  }

  async #expectConnection(what: string, deadline: number): Promise<void> {
    if (this.#closed) throw new PromptStoreError(`prompt store: expected an open store, got ${what} after close()`);
    if (this.#connection.isClosed()) throw this.#unavailable(what, "a closed connection");
    if (this.#disconnectedSince !== undefined) {
      const timer = timeoutAfter(Math.max(0, deadline - Date.now()));
      await Promise.race([this.#reconnected.promise, timer.promise]);
      timer.clear();
    }
    if (this.#disconnectedSince !== undefined) {
      const seconds = ((Date.now() - this.#disconnectedSince) / 1000).toFixed(1);
      throw this.#unavailable(what, `no connection for ${seconds} s`);
    }
    if (this.#connection.info?.jetstream !== true) {
      throw new PromptStoreError(
        `prompt store: expected JetStream at ${this.#server()}, got a server where it is not enabled; ` +
          "add jetstream { store_dir: … } to its configuration file",
      );
    }
  }

  #translate(what: string, error: unknown): Error {
    if (error instanceof PromptStoreError || error instanceof PromptStoreUnavailableError) return error;
    if (isStreamGone(error)) return new StreamGoneError(messageOf(error), { cause: error });
    // The caller of put() looks at the code, so these pass as they are.
    if (isApiError(error, wrongLastSequence) || isApiError(error, otherConfiguration)) return error;
    if (isJetStreamNotEnabled(error)) {
      return new PromptStoreError(
        `prompt store: expected JetStream for this account at ${this.#server()}, got ${error.message}; enable it there`,
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
    this.#streamInDoubt = true;
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
        // nats-server 2.9 leaves a direct get from a stream that is gone without an answer; newer ones say so.
        this.#streamInDoubt = true;
        for (const giveUp of this.#underWay) giveUp();
      } else if (status.type === "reconnect") {
        this.#disconnectedSince = undefined;
        this.#reconnected.resolve();
      }
    }
  }
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
