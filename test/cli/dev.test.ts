// `dev` and `job` as a user runs them: real servers, one worker, commands in other processes that find them by themselves.

import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { findServer } from "../../src/workers/servers/binaries.ts";
import { images, model, runCli } from "./run-cli.ts";

const folder = mkdtempSync(join(tmpdir(), "blipfleet-dev-"));
/** A cache of its own, so that neither another `dev` on this machine nor its state file is touched. */
const environment = {
  ...process.env,
  BLIPFLEET_CACHE: join(folder, "cache"),
  BLIPFLEET_NATS_SERVER: findServer("nats-server"),
  BLIPFLEET_TEMPORAL: findServer("temporal"),
  TEMPORAL_ADDRESS: undefined,
  NATS_URL: undefined,
};
const pictures = join(folder, "pictures");
const main = join(import.meta.dirname, "../../src/cli/main.js");
/** Milliseconds; servers, a worker and its kernels start in about 6 s on two idle cores. */
const startLimit = 90_000;

let dev: ChildProcess;
let devOutput = "";
let devErrors = "";

const blipfleet = (...args: string[]) => runCli(args, environment);

before(async () => {
  mkdirSync(join(folder, "cache"), { recursive: true });
  mkdirSync(pictures);
  for (const name of readdirSync(images)
    .filter((each) => /\.(png|jpg)$/.test(each))
    .slice(0, 6)) {
    copyFileSync(join(images, name), join(pictures, name));
  }
  const args = [
    "dev",
    "--data",
    join(folder, "data"),
    "--root",
    folder,
    "--model",
    model("blip2-opt-tiny"),
    "--dtype",
    "f32",
  ];
  dev = spawn(process.execPath, [main, ...args], { env: environment, stdio: ["ignore", "pipe", "pipe"] });
  dev.stdout?.on("data", (data: Buffer) => {
    devOutput += data.toString("utf8");
  });
  dev.stderr?.on("data", (data: Buffer) => {
    devErrors += data.toString("utf8");
  });
  const deadline = Date.now() + startLimit;
  while (!devErrors.includes("ready;")) {
    assert.equal(dev.exitCode, null, devErrors);
    assert.equal(Date.now() < deadline, true, `not ready: ${devErrors}`);
    await delay(100);
  }
});

after(() => {
  dev.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
});

const lines = (text: string) =>
  text
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));

test("dev prints where everything is", () => {
  for (const name of ["TEMPORAL_ADDRESS", "TEMPORAL_NAMESPACE", "NATS_URL", "BLIPFLEET_JOBS", "BLIPFLEET_ROOTS"]) {
    assert.match(devOutput, new RegExp(`^${name}=.+$`, "m"));
  }
  assert.match(devOutput, /^Temporal UI {2}http:\/\/127\.0\.0\.1:\d+$/m);
});

test("a second dev on the same data says that one runs, and how to have two", async () => {
  const second = await blipfleet("dev", "--data", join(folder, "data"));
  assert.equal(second.status, 2, second.stderr);
  assert.match(
    second.stderr,
    new RegExp(`^blipfleet: dev: .*\\(pid ${dev.pid}\\) already runs on; .* --data FOLDER\n$`),
  );
});

test("a worker with a metrics port that is taken ends with one sentence before it loads anything", async () => {
  const port = /127\.0\.0\.1:(\d+)\/metrics/.exec(devOutput)?.[1] ?? "";
  const { status, stderr } = await blipfleet("worker", "--model", model("blip2-opt-tiny"), "--metrics-port", port);
  assert.equal(status, 2, stderr);
  assert.match(stderr, new RegExp(`^blipfleet: MetricsPortError: .* port ${port} .*--metrics-port 0$`, "m"));
  assert.doesNotMatch(stderr, /adapter opened|model loaded|IllegalStateError/);
});

test("a job that waits for a worker says so in submit, status and watch, with the command that starts one", async () => {
  const other = ["--model", model("blip2-opt-sharded"), "--dtype", "f32"];
  const submitted = await blipfleet("job", "submit", pictures, "--id", "lonely", ...other);
  assert.equal(submitted.status, 0, submitted.stderr);
  const waits =
    /job lonely waits: no worker on encode\..*; start one with `blipfleet worker --model .*blip2-opt-sharded --dtype f32`$/m;
  assert.match(submitted.stderr, waits);
  const standing = await blipfleet("job", "status", "lonely");
  assert.match(standing.stdout, waits);
  const watching = blipfleet("job", "watch", "lonely");
  await delay(2000);
  assert.equal((await blipfleet("job", "cancel", "lonely")).status, 0);
  assert.match((await watching).stderr, waits);
});

test("a job gives the captions of the local command, in the order of the input", async () => {
  const submitted = await blipfleet(
    "job",
    "submit",
    pictures,
    "--id",
    "first",
    "--chunk-size",
    "2",
    "--watch",
    "--format",
    "jsonl",
  );
  assert.equal(submitted.status, 0, submitted.stderr);
  const [standing] = lines(submitted.stdout);
  assert.deepEqual(
    [standing.job_id, standing.state, standing.total, standing.done, standing.failed],
    ["first", "done", 6, 6, 0],
  );

  const exported = await blipfleet("job", "export", "first");
  assert.equal(exported.status, 0, exported.stderr);
  const names = readdirSync(pictures).sort();
  const paths = names.map((name) => join(pictures, name));
  const local = await blipfleet(
    "caption",
    ...paths,
    "--model",
    model("blip2-opt-tiny"),
    "--dtype",
    "f32",
    "--format",
    "jsonl",
  );
  const expected = lines(local.stdout).map(({ text, token_ids }, i) => {
    return { id: names[i], image: names[i], status: "done", text, token_ids };
  });
  assert.deepEqual(lines(exported.stdout), expected);

  const output = join(folder, "out", "captions.jsonl");
  const stats = join(folder, "out", "stats.jsonl");
  const written = await blipfleet("job", "export", "first", "--output", output, "--stats", stats);
  assert.equal(written.status, 0, written.stderr);
  assert.equal(readFileSync(output, "utf8"), exported.stdout);
  assert.deepEqual(Object.keys(lines(readFileSync(stats, "utf8"))[0]), ["id", "status", "adapter", "worker"]);
});

test("an item that fails is a line with its error, status 1, and can be tried again", async () => {
  const list = join(folder, "list.jsonl");
  const missing = join(pictures, "late.png");
  writeFileSync(
    list,
    `${JSON.stringify({ id: "a", image: join(pictures, "clear.png") })}\n${JSON.stringify({ id: "b", image: missing })}\n`,
  );
  const asked = await blipfleet(
    "job",
    "submit",
    list,
    "--id",
    "questions",
    "--task",
    "ask",
    "--prompt",
    "what?",
    "--watch",
  );
  assert.equal(asked.status, 1, asked.stderr);
  assert.match(asked.stdout, /^questions: done, 2 of 2 images, 1 failed$/m);
  const before = await blipfleet("job", "export", "questions");
  assert.equal(before.status, 1);
  const [good, bad] = lines(before.stdout);
  assert.deepEqual(Object.keys(good), ["id", "image", "status", "question", "text", "token_ids"]);
  assert.deepEqual([bad.id, bad.status, bad.question, bad.error.type], ["b", "failed", "what?", "ImageError"]);

  copyFileSync(join(images, "shapes.png"), missing);
  const again = await blipfleet("job", "retry", "questions", "--watch");
  rmSync(missing);
  assert.equal(again.status, 0, again.stderr);
  assert.match(again.stderr, /attempt 1 over 1 item$/m);
  const after = lines((await blipfleet("job", "export", "questions")).stdout);
  assert.deepEqual(after[0], good);
  assert.equal(after[1].status, "done");
});

test("a job is paused, resumed and cancelled", async () => {
  const list = join(folder, "long.txt");
  writeFileSync(list, `${Array.from({ length: 400 }, () => join(pictures, "shapes.png")).join("\n")}\n`);
  const slow = ["--chunk-size", "1", "--window", "1", "--num-beams", "5"];
  assert.equal((await blipfleet("job", "submit", list, "--id", "long", ...slow)).status, 0);
  assert.equal((await blipfleet("job", "pause", "long")).status, 0);
  const standing = async () => lines((await blipfleet("job", "status", "long", "--format", "jsonl")).stdout)[0];
  assert.equal((await standing()).state, "paused");
  assert.equal((await blipfleet("job", "resume", "long")).status, 0);
  assert.equal((await standing()).state, "running");
  assert.equal((await blipfleet("job", "cancel", "long")).status, 0);
  const watched = await blipfleet("job", "watch", "long");
  assert.equal(watched.status, 1, watched.stderr);
  assert.match(watched.stdout, /^long: canceled, \d+ of 400 images/m);
  const whole = await blipfleet("job", "export", "long");
  assert.equal(whole.status, 1);
  assert.match(
    whole.stderr,
    /IncompleteJobError: export: expected a result for each of 400 items, got \d+ without one, as long was cancelled; .*--partial.*job retry long/,
  );
  const part = await blipfleet("job", "export", "long", "--partial");
  assert.equal(part.status, 0, part.stderr);
});

test("what cannot be submitted is refused with the reason, and nothing is left half submitted", async () => {
  const taken = await blipfleet("job", "submit", pictures, "--id", "first");
  assert.equal(taken.status, 1);
  assert.match(taken.stderr, /JobError: job: expected first to be a new id/);
  const outside = await blipfleet("job", "submit", images);
  assert.equal(outside.status, 2);
  assert.match(outside.stderr, /PathError: .*BLIPFLEET_ROOTS/);
  const nowhere = await blipfleet("job", "submit", join(folder, "nowhere"), "--id", "nowhere");
  assert.equal(nowhere.status, 2);
  assert.match(
    nowhere.stderr,
    /^blipfleet: PathError: input: expected a folder .* list, at .*nowhere, got nothing there/m,
  );
  const list = join(folder, "broken.jsonl");
  writeFileSync(
    list,
    `{"id": "a", "image": "pictures/clear.png"}\nno json\n{"id": "a", "image": "pictures/shapes.png"}\n`,
  );
  const broken = await blipfleet("job", "submit", list, "--id", "broken");
  assert.equal(broken.status, 2, broken.stdout);
  assert.match(broken.stderr, /ManifestError: [\s\S]*line 2: [\s\S]*line 3: expected a new id, got "a"/);
  const unknown = await blipfleet("job", "status", "nobody");
  assert.equal(unknown.status, 1);
  assert.match(unknown.stderr, /JobError: job: expected a job nobody, got none/);
});

test("Ctrl-C stops everything that dev started", async () => {
  const ports = [...devOutput.matchAll(/127\.0\.0\.1:(\d+)/g)].map(([, port]) => Number(port));
  assert.equal(ports.length >= 4, true, devOutput);
  dev.kill("SIGINT");
  const [status] = await once(dev, "exit");
  assert.equal(status, 0, devErrors);
  for (const port of ports) assert.equal(await listens(port), false, `port ${port}`);
  assert.equal(existsSync(join(folder, "cache", "dev.json")), false);
  const orphan = await blipfleet("job", "status", "first");
  assert.equal(orphan.status, 1);
});

function listens(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}
