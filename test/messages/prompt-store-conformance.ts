// What every prompt store must do; run against each implementation by the test files beside this one.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { after, before, describe, test } from "node:test";
import { PromptStoreError } from "../../src/messages/errors.ts";
import { promptSubject } from "../../src/messages/prompt-key.ts";
import { headerNames, type PromptMessage, toMessage } from "../../src/messages/prompt-message.ts";
import type { PromptKey, PromptStore } from "../../src/messages/prompt-store.ts";
import type { Activation } from "../../src/stages.ts";

/** A store under test and a back door to its messages. */
export interface StoreUnderTest {
  readonly store: PromptStore;
  /** The message as stored, undefined when there is none. */
  peek(subject: string): Promise<PromptMessage | undefined>;
  /** Put any message under a subject, unchecked. */
  plant(subject: string, message: PromptMessage): Promise<void>;
}

/** Limits of the small store: bytes that it holds, and the largest message. */
export interface StoreLimits {
  readonly maxBytes: number;
  readonly maxMessageBytes: number;
}

export interface StoreFactory {
  open(limits?: StoreLimits): Promise<StoreUnderTest>;
  close(): Promise<void>;
}

export const digest = (text: string) => createHash("sha256").update(text).digest("hex");

export const keyOf = (text: string, model = "model a"): PromptKey => ({
  modelDigest: digest(model),
  key: digest(text),
});

/** An activation whose bytes depend on the seed. */
export function activation(seed: number, overrides: Partial<Activation> = {}): Activation {
  const shape = overrides.shape ?? ([5, 24] as const);
  const type = overrides.type ?? "f32";
  const bytes = new Uint8Array(shape[0] * shape[1] * (type === "f16" ? 2 : 4));
  for (let i = 0; i < bytes.length; i += 1) bytes[i] = (i * 31 + seed * 7) % 251;
  return { kind: "prompt", type, shape, bytes, ...overrides };
}

/** Flip one bit of the body. */
export function flipped(message: PromptMessage): PromptMessage {
  const bytes = message.bytes.slice();
  bytes[17] = (bytes[17] ?? 0) ^ 1;
  return { headers: message.headers, bytes };
}

function withHeader(message: PromptMessage, name: string, value: string): PromptMessage {
  return { headers: { ...message.headers, [name]: value }, bytes: message.bytes };
}

function expectActivation(found: Awaited<ReturnType<PromptStore["get"]>>, expected: Activation): void {
  assert.ok(!("miss" in found), `expected an activation, got ${JSON.stringify(found)}`);
  assert.deepEqual(
    { kind: found.kind, type: found.type, shape: found.shape },
    { kind: expected.kind, type: expected.type, shape: expected.shape },
  );
  assert.deepEqual(Buffer.from(found.bytes), Buffer.from(expected.bytes));
  assert.equal(found.bytes.byteOffset % 4, 0, "the bytes can be seen as f32");
}

/** Register the tests for one implementation. */
export function describePromptStore(name: string, createFactory: () => Promise<StoreFactory>): void {
  describe(`${name}: what every prompt store does`, () => {
    let factory: StoreFactory;
    let t: StoreUnderTest;

    before(async () => {
      factory = await createFactory();
      t = await factory.open();
    });
    after(async () => {
      await factory.close();
    });

    test("an absent key is a miss, and has() says no", async () => {
      assert.deepEqual(await t.store.get(keyOf("absent")), { miss: "absent" });
      assert.equal(await t.store.has(keyOf("absent")), false);
    });

    for (const kind of ["features", "prompt"] as const) {
      for (const type of ["f32", "f16"] as const) {
        test(`${kind} in ${type} comes back as it was put`, async () => {
          const key = keyOf(`round trip ${kind} ${type}`);
          const put = activation(3, {
            kind,
            type,
            shape: [7, 12],
            bytes: activation(3, { type, shape: [7, 12] }).bytes,
          });
          await t.store.put(key, put);
          assert.equal(await t.store.has(key), true);
          expectActivation(await t.store.get(key), put);
          expectActivation(await t.store.get(key, { kind, type, shape: [7, 12] }), put);
        });
      }
    }

    test("put keeps the first of two; overwrite replaces it", async () => {
      const key = keyOf("first wins");
      await t.store.put(key, activation(1));
      await t.store.put(key, activation(2));
      expectActivation(await t.store.get(key), activation(1));
      await t.store.put(key, activation(2), { overwrite: true });
      expectActivation(await t.store.get(key), activation(2));
    });

    test("of many concurrent puts one wins, and all succeed", async () => {
      const key = keyOf("race");
      await Promise.all(Array.from({ length: 12 }, (_, i) => t.store.put(key, activation(i))));
      const found = await t.store.get(key);
      assert.ok(!("miss" in found));
      const winner = Array.from({ length: 12 }, (_, i) => activation(i)).filter((a) =>
        Buffer.from(a.bytes).equals(Buffer.from(found.bytes)),
      );
      assert.equal(winner.length, 1);
    });

    test("the same key under another model is another entry", async () => {
      await t.store.put(keyOf("shared", "model a"), activation(1));
      assert.deepEqual(await t.store.get(keyOf("shared", "model b")), { miss: "absent" });
      assert.equal(await t.store.has(keyOf("shared", "model b")), false);
    });

    test("the caller may reuse the memory that it put or got", async () => {
      const key = keyOf("aliasing");
      const put = activation(9);
      await t.store.put(key, put);
      put.bytes.fill(0);
      const first = await t.store.get(key);
      assert.ok(!("miss" in first));
      first.bytes.fill(0);
      expectActivation(await t.store.get(key), activation(9));
    });

    const tampered: readonly (readonly [string, (message: PromptMessage) => PromptMessage])[] = [
      ["a flipped bit", flipped],
      ["a body cut short", (m) => ({ headers: m.headers, bytes: m.bytes.slice(0, -4) })],
      ["an empty body", (m) => ({ headers: m.headers, bytes: new Uint8Array() })],
      ["no headers", (m) => ({ headers: {}, bytes: m.bytes })],
      ["no checksum", (m) => withHeader(m, headerNames.sha256, "")],
      ["another shape of the same size", (m) => withHeader(m, headerNames.shape, "24,5")],
      [
        "another dtype and shape of the same size",
        (m) => withHeader(withHeader(m, headerNames.dtype, "f16"), headerNames.shape, "5,48"),
      ],
      ["another kind", (m) => withHeader(m, headerNames.kind, "features")],
      ["another model", (m) => withHeader(m, headerNames.model, digest("model b"))],
      ["another key", (m) => withHeader(m, headerNames.key, digest("other"))],
    ];
    for (const [what, change] of tampered) {
      test(`${what} is a corrupt miss, and overwrite heals it`, async () => {
        const key = keyOf(`tampered ${what}`);
        const subject = promptSubject(key);
        await t.store.put(key, activation(4));
        const stored = await t.peek(subject);
        assert.ok(stored);
        await t.plant(subject, change(stored));
        assert.deepEqual(await t.store.get(key), { miss: "corrupt" });
        await t.store.put(key, activation(4));
        assert.deepEqual(await t.store.get(key), { miss: "corrupt" }, "create-once leaves what is there");
        await t.store.put(key, activation(4), { overwrite: true });
        expectActivation(await t.store.get(key), activation(4));
      });
    }

    test("a changed producer changes nothing: it is for people", async () => {
      const key = keyOf("producer");
      await t.store.put(key, activation(4));
      const stored = await t.peek(promptSubject(key));
      assert.ok(stored);
      await t.plant(promptSubject(key), withHeader(stored, headerNames.producer, "somebody else"));
      expectActivation(await t.store.get(key), activation(4));
    });

    test("a sound message of another model or key is foreign", async () => {
      const key = keyOf("foreign");
      await t.plant(promptSubject(key), toMessage(keyOf("foreign", "model b"), activation(1), "test"));
      assert.deepEqual(await t.store.get(key), { miss: "foreign" });
      await t.plant(promptSubject(key), toMessage(keyOf("other"), activation(1), "test"));
      assert.deepEqual(await t.store.get(key), { miss: "foreign" });
    });

    test("a sound message of a form that the reader does not expect is foreign", async () => {
      const key = keyOf("form");
      await t.store.put(key, activation(1));
      const form = { kind: "prompt", type: "f32", shape: [5, 24] } as const;
      expectActivation(await t.store.get(key, form), activation(1));
      assert.deepEqual(await t.store.get(key, { ...form, kind: "features" }), { miss: "foreign" });
      assert.deepEqual(await t.store.get(key, { ...form, type: "f16" }), { miss: "foreign" });
      assert.deepEqual(await t.store.get(key, { ...form, shape: [24, 5] }), { miss: "foreign" });
      assert.deepEqual(await t.store.get(key, { ...form, shape: [5, 25] }), { miss: "foreign" });
    });

    test("an activation whose bytes do not fit its shape is refused before it is stored", async () => {
      const key = keyOf("misfit");
      const misfit: Activation = { kind: "prompt", type: "f16", shape: [5, 24], bytes: new Uint8Array(480) };
      await assert.rejects(t.store.put(key, misfit), (error: Error) => {
        assert.ok(error instanceof PromptStoreError);
        assert.match(error.message, /prompt \(5, 24\) f16 to be 240 bytes, got 480/);
        return true;
      });
      assert.equal(await t.store.has(key), false);
    });

    test("a key that is no digest is refused", async () => {
      const bad = { modelDigest: digest("model a"), key: "../x.>" };
      await assert.rejects(t.store.get(bad), PromptStoreError);
      await assert.rejects(t.store.put(bad, activation(1)), PromptStoreError);
      await assert.rejects(t.store.has({ modelDigest: "*", key: digest("x") }), PromptStoreError);
    });

    test("a full store drops its oldest prompts and goes on", async () => {
      const small = await factory.open({ maxBytes: 64 * 1024, maxMessageBytes: 32 * 1024 });
      const shape = [16, 192] as const; // 12,288 bytes
      const keys = Array.from({ length: 12 }, (_, i) => keyOf(`full ${i}`));
      for (const [i, key] of keys.entries()) await small.store.put(key, activation(i, { shape }));
      const found = await Promise.all(keys.map((key) => small.store.has(key)));
      assert.equal(found.at(-1), true, "the newest is there");
      assert.equal(found[0], false, "the oldest is gone");
      const kept = found.filter(Boolean).length;
      assert.ok(kept >= 3 && kept <= 5, `expected 3 to 5 of 12,288 bytes in 65,536, got ${kept}`);
      assert.deepEqual(found, [...found].sort(), "what is kept is the newest");
      assert.deepEqual(await small.store.get(keys[0] ?? keyOf("none")), { miss: "absent" });
      await small.store.put(keys[0] ?? keyOf("none"), activation(0, { shape }));
      expectActivation(await small.store.get(keys[0] ?? keyOf("none")), activation(0, { shape }));
    });

    test("a payload above the limit is refused with both numbers, and nothing is stored", async () => {
      const small = await factory.open({ maxBytes: 64 * 1024, maxMessageBytes: 32 * 1024 });
      const big = activation(1, { kind: "features", shape: [64, 192] }); // 49,152 bytes
      await assert.rejects(small.store.put(keyOf("too big"), big), (error: Error) => {
        assert.ok(error instanceof PromptStoreError, `expected PromptStoreError, got ${error}`);
        assert.match(error.message, /32768 bytes/);
        assert.match(error.message, /got 49\d\d\d/);
        assert.match(error.message, /features \(64, 192\) f32|at most/);
        return true;
      });
      assert.equal(await small.store.has(keyOf("too big")), false);
    });

    test("checkPlan: fits, payload too large, window too large", async () => {
      const small = await factory.open({ maxBytes: 64 * 1024, maxMessageBytes: 32 * 1024 });
      await small.store.checkPlan({ activationBytes: 4096, inFlight: 4 });
      await assert.rejects(small.store.checkPlan({ activationBytes: 33_000 }), (error: Error) => {
        assert.ok(error instanceof PromptStoreError);
        assert.match(error.message, /32768.*got 3[35]\d\d\d/s);
        return true;
      });
      await assert.rejects(small.store.checkPlan({ activationBytes: 4096, inFlight: 9 }), (error: Error) => {
        assert.ok(error instanceof PromptStoreError);
        assert.match(error.message, /32768 bytes in flight.*got 9 activations of 4096 bytes.*smaller window/s);
        return true;
      });
    });
  });
}
