// Against a real nats-server that this file starts.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { DiscardPolicy, jetstream, jetstreamManager } from "@nats-io/jetstream";
import { headers, type NatsConnection } from "@nats-io/transport-node";
import { connectNats } from "../../src/messages/connect.ts";
import { NatsUnavailableError, PromptStoreError, PromptStoreUnavailableError } from "../../src/messages/errors.ts";
import { type JetStreamPromptStore, openJetStreamPromptStore } from "../../src/messages/jetstream-prompt-store.ts";
import { promptSubject } from "../../src/messages/prompt-key.ts";
import type { JetStreamPromptStoreOptions } from "../../src/messages/stream-config.ts";
import { findServer } from "../../src/workers/servers/binaries.ts";
import { startChild } from "../../src/workers/servers/child.ts";
import { type NatsServer, startNats } from "../../src/workers/servers/nats.ts";
import { freePort } from "../../src/workers/servers/temporal.ts";
import { activation, describePromptStore, keyOf, type StoreUnderTest } from "./prompt-store-conformance.ts";

const folder = mkdtempSync(join(tmpdir(), "blipfleet-nats-"));
after(() => rmSync(folder, { recursive: true, force: true }));

/** A store under test over its own connection; `closing` collects what must be closed. */
async function underTest(
  server: NatsServer,
  options: JetStreamPromptStoreOptions,
  closing: NatsConnection[],
): Promise<StoreUnderTest & { readonly store: JetStreamPromptStore; readonly connection: NatsConnection }> {
  const connection = await connectNats({ NATS_URL: server.url });
  closing.push(connection);
  const store = await openJetStreamPromptStore(connection, options);
  const stream = options.stream ?? "BLIPFLEET_PROMPTS";
  const manager = await jetstreamManager(connection);
  return {
    store,
    connection,
    async peek(subject) {
      const stored = await manager.streams.getMessage(stream, { last_by_subj: subject });
      if (stored === null) return undefined;
      const names = stored.header.keys().filter((name) => name.startsWith("Blipfleet-"));
      return { headers: Object.fromEntries(names.map((name) => [name, stored.header.get(name)])), bytes: stored.data };
    },
    async plant(subject, message) {
      const all = headers();
      for (const [name, value] of Object.entries(message.headers)) all.set(name, value);
      await jetstream(connection).publish(subject, message.bytes, { headers: all });
    },
  };
}

describePromptStore("jetstream", async () => {
  const closing: NatsConnection[] = [];
  const roomy = await startNats({ storeDir: join(folder, "roomy") });
  const tight = await startNats({ storeDir: join(folder, "tight"), maxPayload: "32KB" });
  return {
    async open(limits) {
      if (limits === undefined) return underTest(roomy, {}, closing);
      assert.equal(limits.maxMessageBytes, 32 * 1024, "the tight server was started for this limit");
      return underTest(tight, { maxBytes: limits.maxBytes }, closing);
    },
    async close() {
      for (const connection of closing) await connection.close();
      await roomy.stop();
      await tight.stop();
    },
  };
});

describe("jetstream: streams and servers", () => {
  let server: NatsServer;
  const closing: NatsConnection[] = [];
  const open = (options: JetStreamPromptStoreOptions = {}) => underTest(server, options, closing);

  before(async () => {
    server = await startNats({ storeDir: join(folder, "faults") });
  });
  after(async () => {
    for (const connection of closing) await connection.close();
    await server.stop();
  });

  test("the stream is the cache that was designed", async () => {
    const { store, connection } = await open({ maxBytes: 123_456_789, maxAgeSeconds: 3600, storage: "memory" });
    const { config } = await (await jetstreamManager(connection)).streams.info("BLIPFLEET_PROMPTS");
    assert.deepEqual(config.subjects, ["blipfleet.prompt.*.*"]);
    assert.equal(config.max_msgs_per_subject, 1);
    assert.equal(config.discard, "old");
    assert.equal(config.retention, "limits");
    assert.equal(config.allow_direct, true);
    assert.equal(config.max_bytes, 123_456_789);
    assert.equal(config.max_age, 3600 * 1e9);
    assert.equal(config.storage, "memory");
    assert.deepEqual(store.drift, []);
    assert.deepEqual(await store.limits(), { maxPayload: 8 * 1024 * 1024, maxBytes: 123_456_789 });
  });

  test("another configuration is used as it is and reported", async () => {
    await open({ stream: "DRIFT", maxBytes: 123_456_789, storage: "memory" }).catch(() => undefined);
    const { store, connection } = await open({ maxBytes: 1_000_000, maxAgeSeconds: 60, storage: "file" });
    assert.deepEqual(store.drift, [
      "max_bytes 123456789 instead of 1000000",
      "max_age 3600000000000 instead of 60000000000",
      'storage "memory" instead of "file"',
    ]);
    assert.equal((await store.limits()).maxBytes, 123_456_789);
    await store.put(keyOf("in a drifted stream"), activation(1));
    assert.equal(await store.has(keyOf("in a drifted stream")), true);
    await (await jetstreamManager(connection)).streams.delete("BLIPFLEET_PROMPTS");
  });

  test("a stream that cannot be a cache is refused with every reason", async () => {
    const connection = await connectNats({ NATS_URL: server.url });
    closing.push(connection);
    const manager = await jetstreamManager(connection);
    await manager.streams.add({
      name: "OTHER",
      subjects: ["blipfleet.other.*"],
      discard: DiscardPolicy.New,
      max_bytes: 1000,
    });
    await assert.rejects(openJetStreamPromptStore(connection, { stream: "OTHER" }), (error: Error) => {
      assert.ok(error instanceof PromptStoreError);
      assert.match(error.message, /no subject blipfleet\.prompt\.\*\.\*/);
      assert.match(error.message, /max_msgs_per_subject -1 instead of 1/);
      assert.match(error.message, /discard "new" instead of "old"/);
      assert.match(error.message, /allow_direct false instead of true/);
      return true;
    });
    await manager.streams.delete("OTHER");
  });

  test("more bytes than the server's storage is an error that names the code", async () => {
    const connection = await connectNats({ NATS_URL: server.url });
    closing.push(connection);
    const tooMuch = openJetStreamPromptStore(connection, { stream: "HUGE", maxBytes: 2 ** 52 });
    await assert.rejects(tooMuch, (error: Error) => {
      assert.ok(error instanceof PromptStoreError, `expected PromptStoreError, got ${error}`);
      assert.match(error.message, /HUGE.*insufficient storage.*10047/s);
      return true;
    });
  });

  test("several workers may open the stream at the same moment", async () => {
    const stores = await Promise.all(Array.from({ length: 6 }, () => open()));
    await Promise.all(stores.map(({ store }, i) => store.put(keyOf("opened together"), activation(i))));
    const found = await Promise.all(stores.map(({ store }) => store.get(keyOf("opened together"))));
    const bytes = found.map((entry) => ("miss" in entry ? entry.miss : Buffer.from(entry.bytes).toString("hex")));
    assert.equal(new Set(bytes).size, 1);
  });

  test("a restart that keeps the files keeps the prompts", async () => {
    const { store } = await open();
    await store.put(keyOf("kept"), activation(5));
    await server.restart();
    const found = await store.get(keyOf("kept"));
    assert.ok(!("miss" in found), `expected the prompt, got ${JSON.stringify(found)}`);
  });

  test("after a restart empty every call finds a new stream: get, has and put", async () => {
    const { store: reader } = await open();
    const { store: asker } = await open();
    const { store: writer, connection } = await open();
    await writer.put(keyOf("lost"), activation(5));
    await server.restart({ empty: true });
    assert.deepEqual(await reader.get(keyOf("lost")), { miss: "absent" });
    assert.equal(await writer.has(keyOf("lost")), false);
    const manager = await jetstreamManager(connection);
    await manager.streams.delete("BLIPFLEET_PROMPTS");
    assert.equal(await asker.has(keyOf("lost")), false);
    assert.deepEqual(await reader.get(keyOf("lost")), { miss: "absent" }, "the stream is there again");
    await manager.streams.delete("BLIPFLEET_PROMPTS");
    await Promise.all(Array.from({ length: 8 }, (_, i) => writer.put(keyOf(`after the loss ${i}`), activation(i))));
    for (let i = 0; i < 8; i += 1) assert.equal(await reader.has(keyOf(`after the loss ${i}`)), true);
    assert.equal((await manager.streams.info("BLIPFLEET_PROMPTS")).config.max_msgs_per_subject, 1);
  });

  test("while the server is away calls fail within their limit and say so; then they work again", async () => {
    const { store } = await open({ timeoutMs: 700 });
    await store.put(keyOf("before the outage"), activation(1));
    await server.kill();
    const started = Date.now();
    for (const call of [
      () => store.get(keyOf("before the outage")),
      () => store.has(keyOf("before the outage")),
      () => store.put(keyOf("during the outage"), activation(1)),
    ]) {
      await assert.rejects(call(), (error: Error) => {
        assert.ok(error instanceof PromptStoreUnavailableError, `expected PromptStoreUnavailableError, got ${error}`);
        assert.match(error.message, new RegExp(`NATS at 127.0.0.1:${server.port}.*within 700 ms`));
        return true;
      });
    }
    assert.ok(
      Date.now() - started < 5000,
      `expected three calls to give up within 5 s, took ${Date.now() - started} ms`,
    );
    await server.restart();
    // The client tries again every quarter of a second; a call waits for that within its own limit.
    await store.put(keyOf("after the outage"), activation(2));
    assert.equal(await store.has(keyOf("before the outage")), true);
  });

  test("a call made during a short outage waits and succeeds", async () => {
    const { store } = await open({ timeoutMs: 8000 });
    await store.put(keyOf("short outage"), activation(3));
    await server.kill();
    const pending = store.get(keyOf("short outage"));
    await server.restart();
    const found = await pending;
    assert.ok(!("miss" in found));
  });

  test("a store that was closed says so, and its connection lives on", async () => {
    const { store, connection } = await open();
    await store.close();
    await assert.rejects(store.get(keyOf("x")), /expected an open store, got get after close/);
    assert.equal(connection.isClosed(), false);
  });

  test("nothing at the address is a clear error", async () => {
    await assert.rejects(connectNats({ NATS_URL: "nats://127.0.0.1:1" }), (error: Error) => {
      assert.ok(error instanceof NatsUnavailableError);
      assert.match(error.message, /expected a server at 127\.0\.0\.1:1 \(NATS_URL\)/);
      return true;
    });
  });

  test("a stream holds one message per subject, however often it is put", async () => {
    const { store, connection } = await open();
    const manager = await jetstreamManager(connection);
    await manager.streams.purge("BLIPFLEET_PROMPTS");
    for (let i = 0; i < 4; i += 1) {
      await store.put(keyOf("one"), activation(i));
      await store.put(keyOf("two"), activation(i), { overwrite: true });
    }
    const { state } = await manager.streams.info("BLIPFLEET_PROMPTS", { subjects_filter: ">" });
    assert.deepEqual(state.subjects, { [promptSubject(keyOf("one"))]: 1, [promptSubject(keyOf("two"))]: 1 });
    assert.equal(state.messages, 2);
  });
});

describe("jetstream: a server without JetStream", () => {
  test("is refused at once, with what to enable", async () => {
    // startNats waits for JetStream, so the plain server is started by hand.
    const port = await freePort();
    const child = await startChild({
      name: "nats-server",
      command: findServer("nats-server"),
      args: ["--addr", "127.0.0.1", "--port", String(port)],
      logFile: join(folder, "plain.log"),
    });
    try {
      const connection = await connectNatsSoon(`nats://127.0.0.1:${port}`);
      await assert.rejects(openJetStreamPromptStore(connection, { timeoutMs: 1000 }), (error: Error) => {
        assert.ok(error instanceof PromptStoreError);
        assert.match(error.message, /expected JetStream at .*not enabled; add jetstream \{/);
        return true;
      });
      await connection.close();
    } finally {
      await child.stop();
    }
  });
});

async function connectNatsSoon(url: string): Promise<NatsConnection> {
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await connectNats({ NATS_URL: url });
    } catch (error) {
      if (attempt === 40) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}
