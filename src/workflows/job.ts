// A job: a sliding window of chunks over a manifest of any length, in a history of bounded length.
//
// 1. What is in flight is part of the state. Chunks are abandoned at continue-as-new and report by signal to the job's
//    workflow id, so a run that starts in between hears them as well.
// 2. A report counts once: it takes its chunk out of flight, and a chunk that is not in flight changes nothing.
// 3. Signals are taken in before the state is carried over; handlers are synchronous, so none is half done.
// 4. A chunk that is silent is asked about. One that Temporal has lost is started again; its commits are
//    first-writer-wins, so doing work twice changes nothing.
// 5. Results leave the state page by page: an activity commits 100 chunks' digests as one object that names the page
//    before it, and only the newest page's digest stays.

import {
  defineSearchAttributeKey,
  SearchAttributeType,
  WorkflowExecutionAlreadyStartedError,
} from "@temporalio/common";
import {
  ApplicationFailure,
  allHandlersFinished,
  CancellationScope,
  condition,
  getExternalWorkflowHandle,
  isCancellation,
  log,
  makeContinueAsNewFunc,
  ParentClosePolicy,
  setHandler,
  startChild,
  upsertMemo,
  upsertSearchAttributes,
  WorkflowIdReusePolicy,
  workflowInfo,
} from "@temporalio/workflow";
import type {
  Asked,
  ChunkInFlight,
  ChunkInput,
  ChunkStanding,
  JobInput,
  JobProgress,
  OpenPage,
} from "../messages/job.ts";
import { chunkWorkflowId, jobsQueue } from "../messages/queues.ts";
import { chunk } from "./chunk.ts";
import { problemOf } from "./failures.ts";
import {
  attemptFolder,
  freshState,
  hasNext,
  itemsOf,
  pagesToFold,
  progressOf,
  type State,
  silentChunks,
  takeNext,
  takeReport,
} from "./job-state.ts";
import { cancelSignal, chunkFinishedSignal, pauseSignal, progressQuery, resumeSignal } from "./signals.ts";
import { defaultTiming, type JobActivities, jobActivities } from "./stage-activities.ts";

/** Times that a lost chunk is started again before its job fails. */
const mostRestarts = 5;

/** Milliseconds between two updates of what Temporal's lists show. */
const visibilityInterval = 10_000;

/** Messages about silent chunks that the progress shows. */
const waitingShown = 5;

const doneAttribute = defineSearchAttributeKey("BlipfleetDone", SearchAttributeType.INT);
const failedAttribute = defineSearchAttributeKey("BlipfleetFailed", SearchAttributeType.INT);

/** Run all chunks of the manifest. Fails only with a mistake that all items share; its details are the last progress. */
export async function job(input: JobInput): Promise<JobProgress> {
  const timing = input.timing ?? defaultTiming;
  const silentMs = timing.silentSeconds * 1000;
  const activities = jobActivities(timing);
  const state: State = { ...(input.carried ?? freshState(Date.now())) };
  const cancelSent = new Set<number>();
  let waiting: readonly string[] = [];
  let updatedAt = Date.now();
  let shownAt = updatedAt;

  setHandler(pauseSignal, () => {
    state.paused = true;
  });
  setHandler(resumeSignal, () => {
    state.paused = false;
  });
  setHandler(cancelSignal, () => {
    state.canceling = true;
  });
  setHandler(chunkFinishedSignal, (report) => {
    if (!takeReport(state, attemptOf(input), report, Date.now())) return;
    updatedAt = Date.now();
    waiting = [];
  });
  setHandler(progressQuery, () => progressOf(input, state, waiting, updatedAt));
  // A cancellation of the workflow itself means the same as the signal.
  CancellationScope.current().cancelRequested.catch(() => {
    state.canceling = true;
  });

  return CancellationScope.nonCancellable(async () => {
    if (state.manifest === null) await makePlan(activities, input, state);

    while (!isOver(input, state)) {
      if (isStopping(state)) await cancelChunks(input, state, cancelSent);
      else await fillWindow(input, state);
      for (const page of pagesToFold(state, false)) await foldPage(activities, input, state, page);
      if (Date.now() - shownAt >= visibilityInterval) {
        shownAt = Date.now();
        show(input, state);
      }
      const { continueAsNewSuggested, targetWorkerDeploymentVersionChanged } = workflowInfo();
      if (continueAsNewSuggested || targetWorkerDeploymentVersionChanged) await carryOn(input, state);

      const finished = state.chunksFinished;
      const hasNews = () =>
        state.chunksFinished !== finished ||
        isOver(input, state) ||
        (isStopping(state) ? mustCancel(state, cancelSent) : canStart(input, state));
      if (await somethingHappens(hasNews, untilSilent(state, silentMs))) continue;
      waiting = await askAfterSilent(activities, input, state, silentMs);
    }

    for (const page of pagesToFold(state, true)) await foldPage(activities, input, state, page);
    show(input, state);
    const outcome = progressOf(input, state, [], updatedAt);
    if (state.problem === null) return outcome;
    const { type, message } = state.problem;
    throw ApplicationFailure.create({ type, message, nonRetryable: true, details: [outcome] });
  });
}

/** Commit the manifest, unless the job is cancelled first. A mistake in the source is the job's problem. */
async function makePlan(activities: JobActivities, input: JobInput, state: State): Promise<void> {
  const scope = new CancellationScope();
  const { jobId, source, imageFolder, chunkSize, window, previous = [] } = input;
  const plan = {
    jobId,
    source,
    ...(imageFolder === undefined ? {} : { imageFolder }),
    asked: askedOf(input),
    itemsInFlight: chunkSize * window,
    attempt: attemptOf(input),
    folder: attemptFolder(input),
    previous,
  };
  const planned = scope
    .run(() => activities.plan(plan))
    .then(
      (manifest) => {
        state.manifest = manifest;
      },
      (error: unknown) => {
        if (!isCancellation(error)) state.problem = problemOf(error);
      },
    );
  await Promise.race([planned, condition(() => state.canceling)]);
  if (!state.canceling) return;
  scope.cancel();
  await planned;
}

async function fillWindow(input: JobInput, state: State): Promise<void> {
  const started: Promise<void>[] = [];
  while (canStart(input, state)) started.push(start(input, state, takeNext(state, Date.now())));
  await Promise.all(started);
}

/** Start a chunk. One that runs already (this run was reset, or the chunk was only believed lost) reports as well. */
async function start(input: JobInput, state: State, { chunk: number }: ChunkInFlight): Promise<void> {
  const { jobId, asked } = { jobId: input.jobId, asked: askedOf(input) };
  if (state.manifest === null) return;
  const { workflowId } = workflowInfo();
  const chunkInput: ChunkInput = {
    jobId,
    attempt: attemptOf(input),
    folder: attemptFolder(input),
    manifest: state.manifest,
    chunk: number,
    ...itemsOf(state.manifest, input.chunkSize, number),
    asked,
    timing: input.timing ?? defaultTiming,
    reportTo: workflowId,
  };
  try {
    await startChild(chunk, {
      workflowId: chunkWorkflowId(workflowId, attemptOf(input), number),
      taskQueue: jobsQueue,
      args: [chunkInput],
      parentClosePolicy: ParentClosePolicy.ABANDON, // it outlives the run that started it
      workflowIdReusePolicy: WorkflowIdReusePolicy.ALLOW_DUPLICATE, // a lost chunk is started again
      priority: { priorityKey: 3, fairnessKey: fairnessKey(jobId) },
    });
  } catch (error) {
    if (!(error instanceof WorkflowExecutionAlreadyStartedError)) throw error;
    log.warn("the chunk runs already; its report will count", { jobId, chunk: number });
  }
}

/** Cancel every chunk in flight once. One that has ended meanwhile has reported, or will be asked about. */
async function cancelChunks(input: JobInput, state: State, cancelSent: Set<number>): Promise<void> {
  const { workflowId } = workflowInfo();
  const waiting = state.inFlight.filter(({ chunk }) => !cancelSent.has(chunk));
  await Promise.all(
    waiting.map(async ({ chunk }) => {
      cancelSent.add(chunk);
      try {
        await getExternalWorkflowHandle(chunkWorkflowId(workflowId, attemptOf(input), chunk)).cancel();
      } catch (error) {
        log.info("the chunk ended before it could be cancelled", { jobId: input.jobId, chunk, error: String(error) });
      }
    }),
  );
}

/** Commit one page of results and let go of it. */
async function foldPage(activities: JobActivities, input: JobInput, state: State, open: OpenPage): Promise<void> {
  const page = { page: open.page, previous: state.head, chunks: open.entries };
  state.head = await activities.fold({ folder: attemptFolder(input), page });
  state.openPages = state.openPages.filter((other) => other.page !== open.page);
}

/** Ask Temporal about silent chunks; returns why those that run do not move. */
async function askAfterSilent(
  activities: JobActivities,
  input: JobInput,
  state: State,
  silentMs: number,
): Promise<string[]> {
  const { workflowId } = workflowInfo();
  const silent = silentChunks(state, Date.now(), silentMs);
  if (silent.length === 0) return [];
  const standings = await activities.askAfter({
    chunks: silent.map(({ chunk }) => ({ chunk, workflowId: chunkWorkflowId(workflowId, attemptOf(input), chunk) })),
  });
  for (const standing of standings) await takeStanding(input, state, standing);
  return standings
    .flatMap((standing) => (standing.state === "running" && standing.waiting !== null ? [standing.waiting] : []))
    .slice(0, waitingShown);
}

async function takeStanding(input: JobInput, state: State, standing: ChunkStanding): Promise<void> {
  const inFlight = state.inFlight.find(({ chunk }) => chunk === standing.chunk);
  if (inFlight === undefined) return; // it reported while we asked
  const others = state.inFlight.filter(({ chunk }) => chunk !== standing.chunk);
  const heardAt = Date.now();
  if (standing.state === "reported") {
    takeReport(state, attemptOf(input), standing.report, heardAt);
  } else if (standing.state === "running") {
    state.inFlight = [...others, { ...inFlight, heardAt }];
  } else if (isStopping(state)) {
    state.inFlight = others;
  } else if (inFlight.restarts < mostRestarts) {
    log.warn("a chunk is lost and starts again", { jobId: input.jobId, chunk: standing.chunk, why: standing.why });
    const again = { ...inFlight, heardAt, restarts: inFlight.restarts + 1 };
    state.inFlight = [...others, again];
    await start(input, state, again);
  } else {
    state.inFlight = others;
    state.problem ??= {
      type: "ChunkLostError",
      message: `chunk ${standing.chunk}: expected a report, got none after ${mostRestarts} restarts (${standing.why})`,
    };
  }
}

/**
 * End this run and begin the next with the same input and all of the state. Never returns. Where workers are versioned,
 * every workflow is pinned to the version it started on (see worker.ts), and the next run takes the newest.
 */
async function carryOn(input: JobInput, state: State): Promise<never> {
  await condition(allHandlersFinished);
  const isVersioned = workflowInfo().currentDeploymentVersion !== undefined;
  const next = makeContinueAsNewFunc<typeof job>(isVersioned ? { initialVersioningBehavior: "AUTO_UPGRADE" } : {});
  return next({ ...input, carried: state });
}

/** What Temporal's lists show: search attributes where the server has them. */
function show(input: JobInput, { done, failed }: State): void {
  if (input.visibility === "search-attributes") {
    upsertSearchAttributes([
      { key: doneAttribute, value: done },
      { key: failedAttribute, value: failed },
    ]);
  } else {
    upsertMemo({ done, failed });
  }
}

/** True as soon as `hasNews` is; false when nothing happened for so long (null: wait for ever). */
async function somethingHappens(hasNews: () => boolean, milliseconds: number | null): Promise<boolean> {
  if (milliseconds !== null) return condition(hasNews, milliseconds);
  await condition(hasNews);
  return true;
}

/** Milliseconds until a chunk has been silent for too long; null when none is in flight. */
function untilSilent({ inFlight }: State, silentMs: number): number | null {
  if (inFlight.length === 0) return null;
  const oldest = Math.min(...inFlight.map(({ heardAt }) => heardAt));
  return Math.max(100, oldest + silentMs - Date.now());
}

function canStart(input: JobInput, state: State): boolean {
  return !state.paused && !isStopping(state) && state.inFlight.length < input.window && hasNext(state, input.chunkSize);
}

function mustCancel({ inFlight }: State, cancelSent: ReadonlySet<number>): boolean {
  return inFlight.some(({ chunk }) => !cancelSent.has(chunk));
}

function isStopping({ canceling, problem }: State): boolean {
  return canceling || problem !== null;
}

function isOver(input: JobInput, state: State): boolean {
  return (
    state.inFlight.length === 0 && (isStopping(state) || (state.manifest !== null && !hasNext(state, input.chunkSize)))
  );
}

function attemptOf({ attempt = 0 }: JobInput): number {
  return attempt;
}

function askedOf({
  task,
  model,
  topology,
  prompt,
  generation,
  answers,
  texts,
  templates,
  filter,
  known,
  turns,
}: JobInput): Asked {
  return {
    ...{ task, model, topology, prompt, generation },
    ...(answers === undefined ? {} : { answers }),
    ...(turns === undefined ? {} : { turns }),
    ...(texts === undefined ? {} : { texts }),
    ...(templates === undefined ? {} : { templates }),
    ...(filter === undefined ? {} : { filter }),
    ...(known === undefined ? {} : { known }),
  };
}

/** Jobs share the workers fairly; Temporal takes at most 64 bytes. */
function fairnessKey(jobId: string): string {
  return jobId.slice(0, 64);
}
