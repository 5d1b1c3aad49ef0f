// How a job's standing is told: as a line for people, as an object for programs.

import type { JobProgress, ModelIdentity, Stage, StageTimings } from "../messages/job.ts";
import type { JobClient } from "../workers/job-client.ts";
import { settingsAsFlags } from "./model-options.ts";
import { fromHere } from "./output.ts";
import { formatDuration } from "./progress.ts";

const stageNames: readonly Stage[] = ["encode", "query", "generate"];

/** e.g. "holidays: running, 40 of 200 images, 1 failed, 3.2 images/s, 50 s left" */
export function statusLine(progress: JobProgress): string {
  const { request, state, total, done, failed, imagesPerSecond, attempt, problem } = progress;
  const over = total === 0 ? "" : ` over ${total} ${total === 1 ? "item" : "items"}`;
  const name = attempt > 0 ? `${request.jobId} (attempt ${attempt}${over})` : request.jobId;
  const finished = done + failed;
  const running = state === "running" && imagesPerSecond > 0 && finished < total;
  return [
    `${name}: ${state}`,
    state === "planning" ? null : `${finished} of ${total} images`,
    failed > 0 ? `${failed} failed` : null,
    running ? `${imagesPerSecond.toFixed(1)} images/s` : null,
    running ? `${formatDuration((total - finished) / imagesPerSecond)} left` : null,
    problem === null ? null : `${problem.type}: ${problem.message}`,
  ]
    .filter((part) => part !== null)
    .join(", ");
}

/** e.g. "encode    200 made, 0 reused, 41 s" */
export function stageLines(stages: StageTimings): string[] {
  return stageNames.flatMap((stage) => {
    const work = stages[stage];
    if (work === undefined) return [];
    const seconds = (work.milliseconds / 1000).toFixed(1);
    return [`${stage.padEnd(9)} ${work.made} made, ${work.reused} reused, ${seconds} s in activities`];
  });
}

/** e.g. "first failure: photos/a.jpg: ImageError: expected …"; none while nothing failed. */
export function failureLines({ firstFailure }: JobProgress): string[] {
  if (firstFailure === undefined) return [];
  const { id, error } = firstFailure;
  return [`first failure: ${id}: ${error.type}: ${error.message}`];
}

/** What waits for a worker, and the command that starts one; none while every queue that the job needs is served. */
export async function unservedLines(
  jobs: Pick<JobClient, "unserved">,
  request: Parameters<JobClient["unserved"]>[0] & { readonly jobId: string },
): Promise<string[]> {
  return (await jobs.unserved(request)).map(
    ({ model, queues }) =>
      `job ${request.jobId} waits: no worker on ${queues.join(", ")} (model ${fromHere(model.ref)}, ${model.dtype}); ` +
      `start one with \`${workerCommand(model)}\``,
  );
}

function workerCommand({ ref, dtype, settings }: ModelIdentity): string {
  return `blipfleet worker ${["--model", fromHere(ref), "--dtype", dtype, ...settingsAsFlags(settings)].join(" ")}`;
}

/** Whether nothing moves: a job that has begun and finished nothing, or says that it waits. */
export function mayWait({ state, done, failed, waiting }: JobProgress): boolean {
  return state === "running" && (done + failed === 0 || waiting.length > 0);
}

/** For --format jsonl. */
export function statusFields(progress: JobProgress): Record<string, unknown> {
  const { request, attempt, state, total, done, failed, inFlight, reencoded, imagesPerSecond, stages, problem } =
    progress;
  return {
    job_id: request.jobId,
    state,
    attempt,
    total,
    done,
    failed,
    in_flight: inFlight,
    reencoded,
    images_per_second: imagesPerSecond,
    stages,
    waiting: progress.waiting,
    ...(problem === null ? {} : { error: problem }),
    ...(progress.firstFailure === undefined ? {} : { first_failure: progress.firstFailure }),
  };
}
