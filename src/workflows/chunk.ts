// One chunk of a job: a few hundred items through the stages, by reference. A bad item is data; what fails the chunk is
// a mistake that every item shares.

import {
  ApplicationFailure,
  CancellationScope,
  getExternalWorkflowHandle,
  isCancellation,
  log,
} from "@temporalio/workflow";
import type {
  ChunkIdentity,
  ChunkInput,
  ChunkReport,
  Committed,
  GenerateOutcome,
  Missing,
  Stage,
  StageTimings,
  StageWork,
} from "../messages/job.ts";
import { problemOf } from "./failures.ts";
import { chunkFinishedSignal } from "./signals.ts";
import { type ChunkActivities, chunkActivities } from "./stage-activities.ts";
import { addTimings } from "./timings.ts";

/** Times that missing prompts are encoded again before their items fail. */
export const mostRounds = 3;

/** Encode, query when split, generate; then tell the job. History: about 25 events, and 12 more for every round. */
export async function chunk(input: ChunkInput): Promise<ChunkReport> {
  const { attempt, chunk } = input;
  try {
    const report = await throughTheStages(input);
    await tell(input, report);
    return report;
  } catch (error) {
    if (isCancellation(error)) await tell(input, { attempt, chunk, state: "canceled" });
    else await tell(input, { attempt, chunk, state: "failed", error: problemOf(error) });
    throw error;
  }
}

async function throughTheStages(input: ChunkInput): Promise<ChunkReport> {
  const stages = chunkActivities(input.asked.model, input.timing);
  const prompts: Committed[] = [];
  let missing: Missing | null = null;
  let reencoded = 0;
  let timings: StageTimings = {};

  for (let round = 0; ; round += 1) {
    const { refs, work } = await makePrompts(stages, input, round, missing);
    prompts.push(refs);
    const generated: GenerateOutcome = await stages.generate({
      ...identity(input),
      asked: input.asked,
      round,
      prompts,
      last: round === mostRounds,
    });
    timings = addWork(addTimings(timings, work), "generate", generated);
    missing = generated.missing;
    if (generated.result !== null) {
      const { done, failed, ...result } = generated.result;
      return {
        attempt: input.attempt,
        chunk: input.chunk,
        state: "done",
        result,
        done,
        failed,
        reencoded,
        stages: timings,
      };
    }
    if (round === mostRounds)
      throw ApplicationFailure.nonRetryable("generate: expected a result in the last round, got none");
    reencoded += missing.absent.length + missing.damaged.length;
  }
}

/** One round of encode, and of query when it is a stage of its own. */
async function makePrompts(
  stages: ChunkActivities,
  input: ChunkInput,
  round: number,
  missing: Missing | null,
): Promise<{ readonly refs: Committed; readonly work: StageTimings }> {
  const request = { ...identity(input), asked: input.asked, round, missing };
  const encoded = await stages.encode(request);
  const work = addWork({}, "encode", encoded);
  if (input.asked.topology === "fused") return { refs: encoded.committed, work };
  const queried = await stages.query({ ...request, encoded: encoded.committed });
  return { refs: queried.committed, work: addWork(work, "query", queried) };
}

/** Reports arrive even when the chunk is being cancelled; a job that is gone needs none. */
async function tell(input: ChunkInput, report: ChunkReport): Promise<void> {
  await CancellationScope.nonCancellable(async () => {
    try {
      await getExternalWorkflowHandle(input.reportTo).signal(chunkFinishedSignal, report);
    } catch (error) {
      log.warn("the job is gone; its chunk ends without a report", { jobId: input.jobId, error: String(error) });
    }
  });
}

function identity({ jobId, attempt, folder, manifest, chunk, first, count }: ChunkInput): ChunkIdentity {
  return { jobId, attempt, folder, manifest, chunk, first, count };
}

function addWork(timings: StageTimings, stage: Stage, { made, reused, milliseconds }: StageWork): StageTimings {
  return addTimings(timings, { [stage]: { made, reused, milliseconds } });
}
