// The activities of the workflow `job`: list the input, commit pages of results, ask after silent chunks.

import { Context, getClient } from "@temporalio/activity";
import { type Client, WorkflowFailedError, WorkflowNotFoundError } from "@temporalio/client";
import type { InputOptions } from "../../jobs/inputs.ts";
import { commitJsonl } from "../../jobs/jsonl.ts";
import { commitManifest, planManifest } from "../../jobs/manifest.ts";
import { attemptsOf, unfinishedItems } from "../../jobs/results.ts";
import type { RootCheck } from "../../jobs/roots.ts";
import { openStore } from "../../jobs/store.ts";
import type { Asked, ChunkReport, ChunkStanding, Committed, ManifestRef, ModelIdentity } from "../../messages/job.ts";
import { isSameModel } from "../../messages/queues.ts";
import { expectServes, type Purpose } from "../../models/families.ts";
import { featuresForm } from "../../stages.ts";
import { problemOf } from "../../workflows/failures.ts";
import type { AskInput, FoldInput, PlanInput } from "../../workflows/stage-activities.ts";
import { withHeartbeats } from "./heartbeats.ts";
import { knownImages } from "./known-images.ts";
import { purposeOfTask } from "./model-text.ts";
import { activationBytes, bytesOfForm } from "./prompt-names.ts";
import { type AnyServing, sharesFeatures, writesTexts } from "./serving.ts";

/** What planning works with: which sources may be read, and the models of this worker. */
export interface Planning {
  readonly roots: RootCheck;
  readonly servings: readonly AnyServing[];
}

/**
 * Commit the manifest and check that the prompts in flight fit the store; only a worker that has the job's models can.
 * @throws ManifestError, PathError, StoreError, PromptStoreError, UnsupportedModelError
 */
export async function plan(input: PlanInput, { roots, servings }: Planning): Promise<ManifestRef> {
  const { asked, itemsInFlight } = input;
  const served = (wanted: ModelIdentity, purpose: Purpose) => {
    const serving = servings.find(({ stages: { card } }) => isSameModel(card, wanted));
    if (serving !== undefined) expectServes(serving.stages.card, purpose);
    return serving === undefined ? [] : [serving];
  };
  const found = served(asked.model, purposeOfTask[asked.task]);
  if (asked.filter !== undefined) found.push(...served(asked.filter.model, "matches"));
  // A wrong path or file shows here and not in the first chunk.
  await knownImages(asked, roots);
  const manifest = await planItems(input, roots);
  const inFlight = Math.min(itemsInFlight, manifest.items);
  for (const serving of found) {
    const travels = asked.topology === "split" || sharesFeatures(serving);
    const sizes = travels ? [bytesOfForm(featuresForm(serving.stages.card))] : [];
    if (writesTexts(serving)) sizes.push(activationBytes("prompt", serving.stages.card));
    if (sizes.length > 0) await serving.prompts.checkPlan({ activationBytes: Math.max(...sizes), inFlight });
  }
  return manifest;
}

async function planItems(
  { source, imageFolder, asked, folder, previous }: PlanInput,
  roots: RootCheck,
): Promise<ManifestRef> {
  let records = 0;
  const { cancellationSignal: signal } = Context.current();
  return withHeartbeats(
    () => ({ records }),
    async () => {
      const store = openStore(folder);
      await store.probe();
      const attempts = await attemptsOf(previous);
      if (attempts.length > 0) return commitManifest(store, unfinishedItems(attempts));
      const onProgress = (count: number) => {
        records = count;
      };
      return planManifest(store, source, {
        ...{ roots, texts: textsFor(asked), signal, onProgress },
        ...(asked.task === "classify" && { textField: "label" as const }),
        ...(imageFolder === undefined ? {} : { imageFolder }),
      }).catch(async (error: unknown) => {
        await store.leave(); // a job that cannot be planned leaves nothing behind
        throw error;
      });
    },
  );
}

/** Whether a list's items have texts; labels are texts, too. */
function textsFor({ task, texts = [] }: Asked): NonNullable<InputOptions["texts"]> {
  if (task === "match" || task === "classify") return texts.length === 0 ? "required" : "optional";
  return task === "capfilt" ? "optional" : "none";
}

/** Commit one page of the chain. Its name says what it follows, so that no two pages share one. */
export async function fold({ folder, page }: FoldInput): Promise<Committed> {
  const after = page.previous === null ? "first" : page.previous.sha256.slice(0, 12);
  const name = `pages/${String(page.page).padStart(6, "0")}.${after}.json`;
  return commitJsonl(openStore(folder), name, [page]);
}

/** What Temporal knows about these chunks. */
export async function askAfter({ chunks }: AskInput): Promise<ChunkStanding[]> {
  const client = getClient();
  return Promise.all(chunks.map(({ chunk, workflowId }) => standingOf(client, chunk, workflowId)));
}

async function standingOf(client: Client, chunk: number, workflowId: string): Promise<ChunkStanding> {
  const handle = client.workflow.getHandle(workflowId);
  try {
    const { status, raw } = await handle.describe();
    if (status.name === "RUNNING") {
      const pending = raw.pendingActivities?.[0];
      return { chunk, state: "running", waiting: pending ? waitingText(chunk, pending) : null };
    }
    if (status.name === "COMPLETED" || status.name === "FAILED") {
      return { chunk, state: "reported", report: await handle.result() };
    }
    return { chunk, state: "lost", why: `${workflowId} is ${status.name}` };
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) return { chunk, state: "lost", why: `${workflowId} does not exist` };
    if (!(error instanceof WorkflowFailedError)) throw error;
    const report: ChunkReport = {
      attempt: attemptOf(workflowId),
      chunk,
      state: "failed",
      error: problemOf(error.cause),
    };
    return { chunk, state: "reported", report };
  }
}

interface PendingActivity {
  readonly activityType?: { readonly name?: string | null } | null;
  readonly attempt?: number | null;
  readonly lastFailure?: { readonly message?: string | null } | null;
  readonly lastWorkerIdentity?: string | null;
}

/** Why a chunk does not move: what its activity failed with last, or that nobody has taken it. */
function waitingText(
  chunk: number,
  { activityType, attempt, lastFailure, lastWorkerIdentity }: PendingActivity,
): string {
  const what = `chunk ${chunk}: ${activityType?.name ?? "an activity"}`;
  if (lastFailure?.message) return `${what}, try ${attempt}, after: ${lastFailure.message.slice(0, 300)}`;
  return lastWorkerIdentity ? `${what} is under way on ${lastWorkerIdentity}` : `${what} waits for a worker`;
}

/** The attempt in a chunk's workflow id; see chunkWorkflowId(). */
function attemptOf(workflowId: string): number {
  return Number(/\/(\d+)\/chunk-\d+$/.exec(workflowId)?.[1] ?? 0);
}
