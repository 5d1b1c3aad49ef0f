// Prompts per second into and out of the store, on a nats-server of its own on this machine. The peer is the NATS client
// alone: the same bytes without headers, checksum and verification.

import { createHash, randomBytes } from "node:crypto";
import { join } from "node:path";
import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import type { NatsConnection } from "@nats-io/transport-node";
import type { BenchRow } from "../src/cli/bench.ts";
import { median } from "../src/gpu/median.ts";
import { connectNats } from "../src/messages/connect.ts";
import { openJetStreamPromptStore } from "../src/messages/jetstream-prompt-store.ts";
import type { PromptKey, PromptStore } from "../src/messages/prompt-store.ts";
import type { Activation } from "../src/stages.ts";
import { startNats } from "../src/workers/servers/nats.ts";
import { inTemporaryFolder } from "./temporary-folder.ts";

/** What BLIP-2 with OPT-2.7B passes between stages in f16. */
const forms = [
  { name: "prompt-160KiB", kind: "prompt", type: "f16", shape: [32, 2560] },
  { name: "features-707KiB", kind: "features", type: "f16", shape: [257, 1408] },
] as const;

/** Calls under way at the same time: one, and what a worker's chunk has. */
const concurrencies = [1, 16] as const;

/** Each figure is the median of so many rounds of so many calls. */
const rounds = 5;
const callsInRound = 96;

/** Stores a body under a subject, and reads it back. */
interface Plain {
  put(subject: string, bytes: Uint8Array): Promise<void>;
  get(subject: string): Promise<number>;
}

/** Rates of put, get and has, and those of the plain client beside them. */
export async function rows(): Promise<readonly BenchRow[]> {
  return inTemporaryFolder("blipfleet-bench-", async (folder) => {
    const server = await startNats({ storeDir: join(folder, "nats") });
    const connection = await connectNats({ NATS_URL: server.url });
    try {
      const store = await openJetStreamPromptStore(connection, { maxBytes: 4 * 1024 ** 3 });
      const plain = await plainClient(connection);
      const all: BenchRow[] = [];
      for (const form of forms) {
        for (const concurrency of concurrencies) all.push(...(await measure(store, plain, form, concurrency)));
      }
      return all;
    } finally {
      await connection.close();
      await server.stop();
    }
  });
}

async function plainClient(connection: NatsConnection): Promise<Plain> {
  const manager = await jetstreamManager(connection);
  const client = jetstream(connection);
  await manager.streams.add({ name: "PLAIN", subjects: ["plain.*"], max_msgs_per_subject: 1, allow_direct: true });
  return {
    async put(subject, bytes) {
      await client.publish(`plain.${subject}`, bytes);
    },
    async get(subject) {
      const found = await manager.direct.getMessage("PLAIN", { last_by_subj: `plain.${subject}` });
      if (found === null) throw new Error(`bench: expected ${subject} in the plain stream, got none`);
      return found.data.length;
    },
  };
}

async function measure(
  store: PromptStore,
  plain: Plain,
  { name, ...form }: (typeof forms)[number],
  concurrency: number,
): Promise<BenchRow[]> {
  const samples = { put: [], get: [], has: [], plainPut: [], plainGet: [] } satisfies Record<string, number[]>;
  const rates: Record<keyof typeof samples, number[]> = samples;
  const bytes = randomBytes(form.shape[0] * form.shape[1] * 2);
  const activation: Activation = { ...form, bytes };
  for (let round = 0; round < rounds; round += 1) {
    const keys = Array.from({ length: callsInRound }, (_, i) => keyOf(`${name} ${concurrency} ${round} ${i}`));
    // In turns, so that a slow moment of the machine hits both.
    rates.put.push(await rate(keys, concurrency, (key) => store.put(key, activation)));
    rates.plainPut.push(await rate(keys, concurrency, ({ key }) => plain.put(key, bytes)));
    rates.get.push(await rate(keys, concurrency, (key) => expectHit(store, key, form)));
    rates.plainGet.push(await rate(keys, concurrency, ({ key }) => plain.get(key)));
    rates.has.push(await rate(keys, concurrency, (key) => store.has(key)));
  }
  const where = `${name}-x${concurrency}`;
  return [
    row(`prompt-store-put-${where}`, rates.put, rates.plainPut),
    row(`prompt-store-get-${where}`, rates.get, rates.plainGet),
    row(`prompt-store-has-${where}`, rates.has),
  ];
}

async function expectHit(
  store: PromptStore,
  key: PromptKey,
  form: Pick<Activation, "kind" | "type" | "shape">,
): Promise<void> {
  const found = await store.get(key, form);
  if ("miss" in found) throw new Error(`bench: expected the prompt that was just put, got ${found.miss}`);
}

/** Calls per second over all keys, `concurrency` at a time. */
async function rate(
  keys: readonly PromptKey[],
  concurrency: number,
  call: (key: PromptKey) => Promise<unknown>,
): Promise<number> {
  const left = keys.values();
  const started = performance.now();
  const lanes = Array.from({ length: concurrency }, async () => {
    for (const key of left) await call(key);
  });
  await Promise.all(lanes);
  return keys.length / ((performance.now() - started) / 1000);
}

function row(name: string, ours: readonly number[], peer?: readonly number[]): BenchRow {
  const mine = median(ours);
  const theirs = peer === undefined ? null : median(peer);
  return { name, ours: mine, peer: theirs, unit: "1/s", ratio: theirs === null ? null : mine / theirs };
}

function keyOf(text: string): PromptKey {
  const digest = (part: string) => createHash("sha256").update(part).digest("hex");
  return { modelDigest: digest("bench"), key: digest(text) };
}
