// Images per second in this process, and through Temporal and NATS with one worker, at the same batch size.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { BenchRow } from "../src/cli/bench.ts";
import { inOrder } from "../src/cli/in-order.ts";
import { imagesInFlight } from "../src/cli/local-run.ts";
import { median } from "../src/gpu/median.ts";
import { cacheFolder } from "../src/jobs/roots.ts";
import { jobWorkflowId } from "../src/messages/queues.ts";
import { defaultGeneration, type Stages } from "../src/stages.ts";
import { connectJobs } from "../src/workers/job-client.ts";
import { openStagesGroup } from "../src/workers/stages.ts";
import { Fleet } from "../test/whole/fleet.ts";
import { writeManifest, writePictures } from "../test/whole/pictures.ts";
import { heavy, writeRandomCheckpoint } from "./random-checkpoint.ts";
import { inTemporaryFolder } from "./temporary-folder.ts";

const dtype = "f32";
const images = 500;
const rounds = 5;
/** Both sides are warm before they are timed: shaders compiled, lists recorded, files in the page cache. */
const warmUp = 64;

export async function rows(): Promise<readonly BenchRow[]> {
  return inTemporaryFolder("blipfleet-bench-", async (folder) => {
    const model = await writeRandomCheckpoint(join(folder, "model"), heavy);
    const paths = await writePictures(folder, images, heavy.imageSize);
    const manifest = await writeManifest(folder, paths);
    const fleet = await Fleet.open(folder);
    const distributed: number[] = [];
    const inProcess: number[] = [];
    try {
      for (let round = 0; round < rounds; round += 1) {
        inProcess.push(await runInProcess(model, paths));
        distributed.push(await runDistributed(fleet, model, folder, manifest, round));
        process.stderr.write(
          `bench: pipeline: round ${round + 1} of ${rounds}: in-process ${inProcess.at(-1)?.toFixed(2)} images/s, ` +
            `distributed ${distributed.at(-1)?.toFixed(2)} images/s\n`,
        );
      }
    } finally {
      await fleet.close();
    }
    const ours = median(distributed);
    const peer = median(inProcess);
    return [
      { name: "distributed-vs-in-process", ours, peer, unit: "images/s", ratio: ours / peer },
      { name: "in-process time an image", ours: 1000 / peer, peer: null, unit: "ms", ratio: null },
    ];
  });
}

/** Images per second of the local data flow, everything warm. */
async function runInProcess(model: string, paths: readonly string[]): Promise<number> {
  const group = await openStagesGroup({ cacheFolder: cacheFolder() });
  try {
    const stages = await group.open({ ref: model, dtype });
    await captionAll(stages, paths.slice(0, warmUp));
    const started = performance.now();
    await captionAll(stages, paths);
    return (paths.length * 1000) / (performance.now() - started);
  } finally {
    await group.close();
  }
}

async function captionAll(stages: Stages, paths: readonly string[]): Promise<void> {
  const caption = async (path: string) => {
    const pixels = await stages.toPixels(await readFile(path));
    const prompt = await stages.encodeAndQuery(pixels);
    return stages.detokenize(await stages.generate(prompt, await stages.tokenize(null), defaultGeneration));
  };
  await inOrder(paths, imagesInFlight, caption, () => {});
}

/** Images per second of a job from submit to done, with one warm worker and an empty prompt store. */
async function runDistributed(
  fleet: Fleet,
  model: string,
  folder: string,
  manifest: string,
  round: number,
): Promise<number> {
  const worker = await fleet.worker({ model, dtype });
  try {
    const warm = join(folder, `warm-${round}`);
    const pictures = await writePictures(warm, warmUp, 281 + round);
    await run(fleet, model, `warm-${round}`, await writeManifest(warm, pictures));
    await fleet.nats.restart({ empty: true });
    return (images * 1000) / (await run(fleet, model, `timed-${round}`, manifest));
  } finally {
    await worker.stop();
  }
}

/** Milliseconds from the workflow's start to its end, as Temporal recorded them; planning included. */
async function run(fleet: Fleet, model: string, jobId: string, manifest: string): Promise<number> {
  const options = ["--id", jobId, "--model", model, "--dtype", dtype, "--chunk-size", "64", "--window", "4"];
  await fleet.must(["job", "submit", manifest, ...options]);
  await fleet.must(["job", "watch", jobId]);
  const jobs = await connectJobs({ TEMPORAL_ADDRESS: fleet.temporal.address });
  try {
    const { startTime, closeTime } = await jobs.client.workflow.getHandle(jobWorkflowId(jobId)).describe();
    if (closeTime === undefined) throw new Error(`bench: expected job ${jobId} to have ended, got one that runs`);
    return closeTime.getTime() - startTime.getTime();
  } finally {
    await jobs.close();
  }
}
