// What happens to a job at night: workers killed in every stage, a prompt store that forgets, a worker that freezes and
// wakes. Every id ends exactly once with the text of an undisturbed run.

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { packageRoot } from "../../src/gpu/package-root.ts";
import type { JobProgress, Stage } from "../../src/messages/job.ts";
import { Fleet, type WorkerProcess } from "./fleet.ts";
import { writeManifest, writePictures } from "./pictures.ts";

const model = join(packageRoot, "test", "fixtures", "models", "blip2-opt-tiny");
const items = 400;
/** Seconds; so short that a killed or frozen worker's work moves on within the test. */
const heartbeat = 3;
const submitOptions = [
  "--model",
  model,
  "--dtype",
  "f32",
  "--chunk-size",
  "8",
  "--window",
  "3",
  "--max-new-tokens",
  "12",
];

let images: string;
let manifest: string;
let fleet: Fleet;
let undisturbed: string;

before(async () => {
  images = await mkdtemp(join(tmpdir(), "blipfleet-images-"));
  manifest = await writeManifest(images, await writePictures(images, items));
  fleet = await Fleet.open(images, {
    BLIPFLEET_HEARTBEAT_TIMEOUT: String(heartbeat),
    BLIPFLEET_SILENT_AFTER: "10",
  });
  const calm = await fleet.worker({ model });
  await fleet.must(["job", "submit", manifest, "--id", "undisturbed", "--topology", "split", ...submitOptions]);
  await fleet.must(["job", "watch", "undisturbed"]);
  undisturbed = await fleet.must(["job", "export", "undisturbed"]);
  await calm.stop();
  await fleet.nats.restart({ empty: true });
});

after(async () => {
  await fleet?.close();
  await rm(images, { recursive: true, force: true });
});

const underWay = (progress: JobProgress) => progress.done > 0 && progress.done < progress.total;

/** Wait until the job is under way, more is done than `beyond`, and this worker has items of its stage in hand. */
async function caughtAtWork(jobId: string, worker: WorkerProcess, stage: Stage, beyond: number): Promise<JobProgress> {
  const deadline = Date.now() + 60_000;
  while (Date.now() < deadline) {
    const progress = await fleet.until(
      jobId,
      "to be under way",
      (each) => each.done > beyond || each.state !== "running",
    );
    assert.ok(underWay(progress), `${jobId}: expected 0 < done < all, got ${JSON.stringify(progress)}`);
    for (let look = 0; look < 200; look += 1) {
      if ((await worker.metric("blipfleet_items_in_flight", { stage })) > 0) return progress;
      await delay(5);
    }
  }
  throw new Error(`${jobId}: expected items in flight at ${stage}, got none\n${fleet.logs()}`);
}

/** Wait until the workers of these stages have had no item in hand for a while: what is left waits for another stage. */
async function idle(workers: Record<Stage, WorkerProcess>, stages: readonly Stage[]): Promise<void> {
  const deadline = Date.now() + 60_000;
  let quietSince = Date.now();
  while (Date.now() < deadline) {
    const inHand = await Promise.all(
      stages.map((stage) => workers[stage].metric("blipfleet_items_in_flight", { stage })),
    );
    if (inHand.some((items) => items > 0)) quietSince = Date.now();
    if (Date.now() - quietSince > 1500) return;
    await delay(20);
  }
  throw new Error(`expected no items in hand at ${stages.join(" and ")} for 1.5 s, got some for 60 s\n${fleet.logs()}`);
}

async function finish(jobId: string): Promise<void> {
  await fleet.must(["job", "watch", jobId]);
  const exported = await fleet.must(["job", "export", jobId]);
  const ids = exported
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line).id);
  assert.equal(ids.length, items);
  assert.equal(new Set(ids).size, items);
  assert.equal(exported, undisturbed);
}

test("SIGKILL in each stage, an emptied prompt store, and a worker that freezes and wakes", async () => {
  const jobId = "disturbed";
  const workers: Record<Stage, WorkerProcess> = {
    encode: await fleet.worker({ model, stages: ["encode"] }),
    query: await fleet.worker({ model, stages: ["query"] }),
    generate: await fleet.worker({ model, stages: ["generate"] }),
  };
  await fleet.must(["job", "submit", manifest, "--id", jobId, "--topology", "split", ...submitOptions]);

  let done = 0;
  for (const stage of ["encode", "query"] as const) {
    ({ done } = await caughtAtWork(jobId, workers[stage], stage, done));
    await workers[stage].kill();
    workers[stage] = await fleet.worker({ model, stages: [stage] });
  }

  // Without a generate worker the window's chunks gather before that stage, their prompts in the store, which forgets them.
  ({ done } = await caughtAtWork(jobId, workers.generate, "generate", done));
  await workers.generate.kill();
  await idle(workers, ["encode", "query"]);
  await fleet.nats.restart({ empty: true });
  workers.generate = await fleet.worker({ model, stages: ["generate"] });

  // Frozen past its timeout, a second generate worker takes over; then the first wakes with stale work in hand.
  ({ done } = await caughtAtWork(jobId, workers.generate, "generate", done));
  const frozen = workers.generate;
  frozen.signal("SIGSTOP");
  const other = await fleet.worker({ model, stages: ["generate"] });
  await delay((heartbeat + 1) * 1000);
  await fleet.until(jobId, `more than ${done} done by the other worker`, (each) => each.done > done);
  frozen.signal("SIGCONT");
  await finish(jobId);
  assert.ok((await other.metric("blipfleet_items_total", { stage: "generate", outcome: "made" })) > 0);
  // What the emptied store had lost was asked for again.
  assert.ok((await fleet.progress(jobId))?.reencoded, "expected items that were encoded again");
  await fleet.killWorkers();
});

test("SIGTERM in the middle of a batch: the worker drains, another goes on", async () => {
  const jobId = "drained";
  const first = await fleet.worker({ model });
  await fleet.must(["job", "submit", manifest, "--id", jobId, ...submitOptions]);
  await caughtAtWork(jobId, first, "generate", 0);
  const status = await first.stop();
  assert.equal(status, 0, first.log);
  await fleet.worker({ model });
  await finish(jobId);
});
