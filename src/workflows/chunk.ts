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
  ModelIdentity,
  Stage,
  StageTimings,
  StageWork,
} from "../messages/job.ts";
import { problemOf } from "./failures.ts";
import { chunkFinishedSignal } from "./signals.ts";
import { type ChunkActivities, chunkActivities, compareActivities } from "./stage-activities.ts";
import { addTimings } from "./timings.ts";

/** Times that missing prompts are encoded again before their items fail. */
export const mostRounds = 3;

/** All stages of the task; then tell the job. History: about 25 events (capfilt 40), and 12 more for every round. */
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

/** What the chunk's activities gave: its result, and what it took. */
interface Finished {
  readonly result: NonNullable<GenerateOutcome["result"]>;
  readonly reencoded: number;
  readonly work: StageTimings;
}

async function throughTheStages(input: ChunkInput): Promise<ChunkReport> {
  const { attempt, chunk } = input;
  const { result, reencoded, work: stages } = await finishedBy(input);
  const { name, sha256, ...counts } = result;
  return { attempt, chunk, state: "done", result: { name, sha256 }, ...counts, reencoded, stages };
}

async function finishedBy(input: ChunkInput): Promise<Finished> {
  const { task, model, filter } = input.asked;
  if (task === "caption" || task === "ask") return makeTexts(input);
  if (task !== "capfilt") return compare(input, model, null);
  if (filter === undefined) throw ApplicationFailure.nonRetryable("capfilt: expected a filter in the job, got none");
  const { result, ...captions } = await makeTexts(input);
  const compared = await compare(input, filter.model, { name: result.name, sha256: result.sha256 });
  return {
    result: compared.result,
    reencoded: captions.reencoded + compared.reencoded,
    work: addTimings(captions.work, compared.work),
  };
}

/** Texts by the stages of the job's model. */
function makeTexts(input: ChunkInput): Promise<Finished> {
  const { asked } = input;
  const stages = chunkActivities(asked.model, input.timing);
  const prompts: Committed[] = [];
  return inRounds(async (round, missing) => {
    const { refs, work } = await makePrompts(stages, input, round, missing);
    prompts.push(refs);
    const last = round === mostRounds;
    const outcome = await stages.generate({ ...identity(input), asked, round, prompts, last });
    return { outcome, work: addWork(work, "generate", outcome) };
  });
}

/** What a model that compares makes of the images: one activity when fused, else encode and then, on any worker, compare. */
function compare(input: ChunkInput, model: ModelIdentity, captions: Committed | null): Promise<Finished> {
  const { asked } = input;
  const isFused = asked.topology === "fused";
  const stages = compareActivities(model, asked.topology, input.timing);
  const encoded: Committed[] = [];
  return inRounds(async (round, missing) => {
    const request = { ...identity(input), asked, round };
    let work: StageTimings = {};
    if (!isFused) {
      const features = await stages.encode({ ...request, missing });
      encoded.push(features.committed);
      work = addWork(work, "encode", features);
    }
    const last = round === mostRounds;
    const outcome = await stages.compare({ ...request, encoded: isFused ? null : encoded, captions, last });
    return { outcome, work: addWork(work, isFused ? "encode" : "query", outcome) };
  });
}

/** Round after round, until nothing that a stage left in the prompt store is missing at the last one. */
async function inRounds(
  oneRound: (
    round: number,
    missing: Missing | null,
  ) => Promise<{ readonly outcome: GenerateOutcome; readonly work: StageTimings }>,
): Promise<Finished> {
  let missing: Missing | null = null;
  let reencoded = 0;
  let sum: StageTimings = {};
  for (let round = 0; ; round += 1) {
    const { outcome, work } = await oneRound(round, missing);
    sum = addTimings(sum, work);
    if (outcome.result !== null) return { result: outcome.result, reencoded, work: sum };
    if (round === mostRounds)
      throw ApplicationFailure.nonRetryable("chunk: expected a result in the last round, got none");
    missing = outcome.missing;
    reencoded += missing.absent.length + missing.damaged.length;
  }
}

/** What generate reads, by reference: prompts in the store. */
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
