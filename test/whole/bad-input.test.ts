// Bad input through the whole system: a clear error, nothing lost, nothing half done. What one part alone can show is
// tested beside that part.

import assert from "node:assert/strict";
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { jetstreamManager } from "@nats-io/jetstream";
import { headers, type MsgHdrs } from "@nats-io/transport-node";
import { packageRoot } from "../../src/gpu/package-root.ts";
import { connectNats } from "../../src/messages/connect.ts";
import { startNats } from "../../src/workers/servers/nats.ts";
import { Fleet, type Ran, runCommand } from "./fleet.ts";
import { writeManifest, writePictures } from "./pictures.ts";

const fixtures = join(packageRoot, "test", "fixtures");
const model = join(fixtures, "models", "blip2-opt-tiny");
const asked = ["--model", model, "--dtype", "f32", "--max-new-tokens", "8"];

let images: string;
let paths: string[];
let fleet: Fleet;

before(async () => {
  images = await mkdtemp(join(tmpdir(), "blipfleet-images-"));
  paths = await writePictures(images, 24);
  fleet = await Fleet.open(images);
  await fleet.worker({ model });
});

after(async () => {
  await fleet?.close();
  await rm(images, { recursive: true, force: true });
});

interface Line {
  readonly id?: string;
  readonly image: string;
  readonly text?: string;
  readonly error?: { readonly type: string; readonly message: string };
}

const linesOf = ({ stdout }: Ran): Line[] =>
  stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));

/** A refusal is one sentence of ours on stderr and nothing on stdout; drivers may grumble above it. */
function expectRefusal(ran: Ran, status: number, sentence: RegExp): void {
  assert.equal(ran.status, status, ran.stderr);
  assert.equal(ran.stdout, "");
  assert.match(ran.stderr, sentence);
  assert.doesNotMatch(ran.stderr, /^\s+at .*\.[jt]s:\d+/m, "expected no stack");
  assert.equal(ran.stderr.match(/^blipfleet/gm)?.length, 1, ran.stderr);
}

const jobFolders = () => readdir(join(fleet.folder, "jobs"));

test("bad images fail alone, with the same class and sentence here and in a job; the exit status is 1", async () => {
  const whole = await readFile(join(fixtures, "images", "shapes.jpg"));
  const bad: Readonly<Record<string, Uint8Array>> = {
    "zero.jpg": new Uint8Array(0),
    "cut.jpg": whole.subarray(0, whole.length / 2),
    "text.png": Buffer.from("no image\n"),
    "bomb.gif": Buffer.from("GIF89aPĊPĊ\0\0\0,\0\0\0\0PĊPĊ\0\u0002\u0002D\u0001\0;", "latin1"),
  };
  // 50,000 is 0xc350, little-endian.
  bad["bomb.gif"]?.set([0x50, 0xc3, 0x50, 0xc3], 6);
  bad["bomb.gif"]?.set([0x50, 0xc3, 0x50, 0xc3], 18);
  for (const [name, bytes] of Object.entries(bad)) await writeFile(join(images, name), bytes);
  const given = [paths[0] ?? "", ...Object.keys(bad).map((name) => join(images, name)), paths[1] ?? ""];
  const manifest = await writeManifest(images, given);

  const local = await runCommand(["caption", ...given, ...asked, "--format", "jsonl"]);
  assert.equal(local.status, 1, local.stderr);
  await fleet.must(["job", "submit", manifest, "--id", "images", ...asked]);
  const watched = await fleet.run(["job", "watch", "images"]);
  assert.equal(watched.status, 1);
  assert.match(watched.stdout, /^images: done, 6 of 6 images, 4 failed/);
  const exported = await fleet.run(["job", "export", "images"]);
  assert.equal(exported.status, 1);

  const told = (line: Line) => [line.image, line.text, line.error?.type, line.error?.message];
  assert.deepEqual(linesOf(exported).map(told), linesOf(local).map(told));
  const errors = linesOf(local).map(({ error }) => error && `${error.type}: ${error.message}`);
  const expected = [
    /zero bytes/,
    /whole jpeg file/,
    /starts as none of them/,
    /at most 178956970 pixels, got 50000 x 50000/,
  ];
  assert.deepEqual([errors.at(0), errors.at(-1)], [undefined, undefined]);
  for (const [i, sentence] of expected.entries()) assert.match(errors[i + 1] ?? "", sentence);
});

test("texts that cannot be asked fail alone, with both numbers where there are two", async () => {
  const prompts = ["\ud800", "a", "word ".repeat(200_000), "<image>", "\u0000\u001b[31m\u202e"];
  const lines = prompts.map((prompt, i) => JSON.stringify({ id: String(i), image: paths[2], prompt }));
  await writeFile(join(images, "texts.jsonl"), `${lines.join("\n")}\n`);
  await fleet.must(["job", "submit", join(images, "texts.jsonl"), "--id", "texts", ...asked]);
  assert.equal((await fleet.run(["job", "watch", "texts"])).status, 1);
  const results = linesOf(await fleet.run(["job", "export", "texts"]));
  const [half, good, long, slot, steering] = results;
  assert.match(
    `${half?.error?.type}: ${half?.error?.message}`,
    /^TokenizerError: text: expected well-formed Unicode, got half/,
  );
  assert.match(
    `${long?.error?.type}: ${long?.error?.message}`,
    /^GenerationError: .*at most 64 positions .*, got \d{6,}/,
  );
  assert.match(`${slot?.error?.type}: ${slot?.error?.message}`, /^TokenizerError: text: expected no <image>, got one/);
  for (const line of [good, steering]) assert.equal(typeof line?.text, "string");
});

test("a list with mistakes is refused by line, leaves no folder, and its id is free for the mended list", async () => {
  const list = join(images, "list.jsonl");
  const good = { id: "a", image: paths[3] };
  const bad = [JSON.stringify(good), "not JSON", JSON.stringify(good), JSON.stringify({ image: "/etc/hostname" })];
  const before = await jobFolders();
  const submit = () => fleet.run(["job", "submit", list, "--id", "list", ...asked]);

  await writeFile(list, bad.join("\n"));
  const refused = await submit();
  expectRefusal(refused, 2, /ManifestError: list.jsonl: .* got 3 problems; nothing was submitted/);
  assert.match(refused.stderr, /line 2: expected a JSON object, got text that is not JSON: not JSON/);
  assert.match(refused.stderr, /line 3: expected a new id, got "a" as on line 1/);
  assert.match(refused.stderr, /line 4: path: expected one below BLIPFLEET_ROOTS .*, got "\/etc\/hostname"/);
  await writeFile(list, "");
  expectRefusal(await submit(), 2, /ManifestError: .*list.jsonl: expected at least one image, got none/);
  assert.deepEqual(await jobFolders(), before);
  expectRefusal(await fleet.run(["job", "export", "list"]), 1, /export: .* a job that failed: ManifestError/);

  await writeFile(list, JSON.stringify(good));
  assert.equal((await submit()).status, 0);
  assert.equal((await fleet.run(["job", "watch", "list"])).status, 0);
  expectRefusal(await submit(), 1, /JobError: job: expected list to be a new id, got one that exists/);
});

/** A stored message still has the condition under which it was published first. */
function unconditional(stored: MsgHdrs): MsgHdrs {
  const ours = headers();
  for (const name of stored.keys()) if (name.startsWith("Blipfleet-")) ours.set(name, stored.get(name));
  return ours;
}

/** Publish over every prompt in the stream. @returns how many */
async function damagePrompts(): Promise<number> {
  const connection = await connectNats({ NATS_URL: fleet.nats.url });
  try {
    const manager = await jetstreamManager(connection);
    const { state } = await manager.streams.info("BLIPFLEET_PROMPTS", { subjects_filter: ">" });
    const subjects = Object.keys(state.subjects ?? {});
    for (const [i, subject] of subjects.entries()) {
      const message = await manager.streams.getMessage("BLIPFLEET_PROMPTS", { last_by_subj: subject });
      assert.ok(message);
      // Half of them anything at all, half of them sound but for one bit.
      const bytes = Uint8Array.from(message.data);
      bytes[5] = (bytes[5] ?? 0) ^ 1;
      if (i % 2 === 0) connection.publish(subject, "anything at all");
      else connection.publish(subject, bytes, { headers: unconditional(message.header) });
    }
    await connection.flush();
    return subjects.length;
  } finally {
    await connection.close();
  }
}

test("prompts that somebody overwrote are found out and made again; not a byte of the results differs", async () => {
  const manifest = await writeManifest(images, paths);
  const run = async (id: string) => {
    await fleet.must(["job", "submit", manifest, "--id", id, ...asked]);
    await fleet.must(["job", "watch", id]);
    return fleet.must(["job", "export", id]);
  };
  const calm = await run("calm");
  assert.ok((await damagePrompts()) >= paths.length);
  assert.equal(await run("damaged"), calm);
  assert.equal((await fleet.progress("damaged"))?.reencoded, paths.length);
  assert.equal(await run("healed"), calm);
  assert.equal((await fleet.progress("healed"))?.reencoded, 0);
});

test("NATS down while a job is submitted and begins: it waits, says so, and ends as if nothing had been", async () => {
  const manifest = await writeManifest(images, paths);
  const calm = await fleet.must(["job", "export", "calm"]);
  await fleet.nats.kill();
  const submitted = fleet.must(["job", "submit", manifest, "--id", "outage", ...asked]);
  await delay(6000); // longer than one call to the prompt store may take
  assert.equal((await fleet.progress("outage"))?.done, 0);
  await fleet.nats.restart();
  await submitted;
  await fleet.must(["job", "watch", "outage"]);
  assert.equal(await fleet.must(["job", "export", "outage"]), calm);
  assert.match(fleet.logs(), /expected NATS at 127.0.0.1:\d+ to answer \w+ within 5000 ms, got no connection for/);
});

test("a NATS server with too small a max_payload: the worker ends, naming both numbers and the setting", async () => {
  const nats = await startNats({ storeDir: join(fleet.folder, "small-nats"), maxPayload: "1KB" });
  try {
    const ran = await runCommand(["worker", "--model", model, "--dtype", "f32", "--metrics-port", "0"], {
      ...fleet.environment,
      NATS_URL: nats.url,
    });
    assert.equal(ran.status, 1);
    assert.match(
      ran.stderr,
      /PromptStoreError: .*at most 1024 bytes \(max_payload .*\), got \d{4} .*; set max_payload to 1MB or more/,
    );
  } finally {
    await nats.stop();
  }
});

test("no adapter: one sentence and the next step, as a command and as a worker", async () => {
  const none = { ...fleet.environment, VK_DRIVER_FILES: "/nonexistent.json", VK_ICD_FILENAMES: "/nonexistent.json" };
  for (const command of [
    ["caption", paths[0] ?? ""],
    ["worker", "--metrics-port", "0"],
  ]) {
    const ran = await runCommand([...command, "--model", model, "--dtype", "f32"], none);
    expectRefusal(ran, 1, /^blipfleet: AdapterError: adapter: expected .*, found none; run `npm run setup`/m);
  }
});

test("a checkpoint that cannot be used is refused before a job begins: all problems at once, nothing left", async () => {
  const damaged = await mkdtemp(join(tmpdir(), "blipfleet-damaged-"));
  try {
    await cp(join(fixtures, "models", "blip2-opt-sharded"), damaged, { recursive: true });
    await rm(join(damaged, "model-00002-of-00005.safetensors"));
    const shard = join(damaged, "model-00004-of-00005.safetensors");
    const bytes = await readFile(shard);
    bytes.writeBigUInt64LE(2n ** 62n);
    await writeFile(shard, bytes);
    const before = await jobFolders();
    const ran = await fleet.run(["job", "submit", images, "--id", "weights", "--model", damaged, "--dtype", "f32"]);
    expectRefusal(ran, 2, /WeightsError: .*got 2 problems:/);
    assert.match(ran.stderr, /model-00002-of-00005.safetensors: .*no such file \(\d+ tensors\)/);
    assert.match(
      ran.stderr,
      /model-00004-of-00005.safetensors: expected a header of at most \d+ bytes, got 4611686018427387904/,
    );
    assert.deepEqual(await jobFolders(), before);
    expectRefusal(await fleet.run(["job", "status", "weights"]), 1, /JobError: job: expected a job weights, got none/);
  } finally {
    await rm(damaged, { recursive: true, force: true });
  }
});

test("Temporal away at submit: one sentence with the address and the next step, nothing left", async () => {
  const before = await jobFolders();
  const away = { ...fleet.environment, TEMPORAL_ADDRESS: "127.0.0.1:1" };
  const ran = await runCommand(["job", "submit", images, "--id", "away", ...asked], away);
  expectRefusal(
    ran,
    1,
    /TemporalUnavailableError: Temporal: expected a server at 127.0.0.1:1 .* start one with "blipfleet dev"/,
  );
  assert.deepEqual(await jobFolders(), before);
});
