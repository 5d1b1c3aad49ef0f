// blipfleet job submit SOURCE

import { randomBytes } from "node:crypto";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { type Command, Option } from "commander";
import type { JobRequest, Topology } from "../messages/job.ts";
import { type Dtype, defaultGeneration, type RunSettings } from "../stages.ts";
import type { DevState } from "./dev-state.ts";
import { UsageError } from "./errors.ts";
import { addGenerationOptions, type GenerationFlags, generationFrom, wholeNumber } from "./generation-options.ts";
import { withJobs } from "./job-connection.ts";
import { followJob } from "./job-follow.ts";
import { statusFields, statusLine } from "./job-lines.ts";
import {
  addFormatOption,
  addModelOptions,
  addSettingsOptions,
  chooseModel,
  type FormatFlag,
  type ModelFlags,
  settingsAsFlags,
  settingsFrom,
} from "./model-options.ts";
import { fromHere, tell, writeJson, writeLine } from "./output.ts";

interface Flags extends ModelFlags, FormatFlag, GenerationFlags {
  readonly task: "caption" | "ask";
  readonly prompt?: string;
  readonly topology: Topology;
  readonly id?: string;
  readonly chunkSize: number;
  readonly window: number;
  readonly watch?: boolean;
}

/** Items a chunk: half a minute of work on a CPU driver, and small enough that a lost worker costs little. */
const defaultChunkSize = 16;
/** Chunks in flight: two for each of four workers. */
const defaultWindow = 8;

export function addSubmitCommand(job: Command): void {
  const command = job
    .command("submit")
    .description("Start a job over a folder of images, a text list of paths, a JSONL or a CSV file.")
    .argument("<source>", "folder, .txt (a path a line), .jsonl ({image, id?, prompt?}) or .csv (image, id?, prompt?)")
    .addOption(
      new Option("--task <task>", "what is asked of every image").choices(["caption", "ask"]).default("caption"),
    )
    .option("--prompt <text>", "caption: text that captions continue; ask: the question; for items without their own")
    .addOption(
      new Option(
        "--topology <topology>",
        "fused: one stage makes prompts; split: encode and query on different workers",
      )
        .choices(["fused", "split"])
        .default("fused"),
    )
    .option("--id <id>", "name of the job (default: from date and time)")
    .option(
      "--chunk-size <items>",
      "items a chunk; 64 to 512 suit GPUs",
      wholeNumber("--chunk-size", 1, 4096),
      defaultChunkSize,
    )
    .option("--window <chunks>", "chunks in flight", wholeNumber("--window", 1, 1000), defaultWindow)
    .option("--watch", "stay and show progress until the job has ended");
  addModelOptions(command);
  addSettingsOptions(command);
  addFormatOption(command);
  addGenerationOptions(command);
  command.addHelpText(
    "after",
    `
Images must lie below the workers' BLIPFLEET_ROOTS (with \`blipfleet dev\`: below its --root).

Examples:
  blipfleet job submit photos --watch
  blipfleet job submit list.jsonl --task ask --prompt "What is in the picture?" --id questions-1
`,
  );
  command.action(async (source: string, flags: Flags) => {
    expectQuestions(source, flags);
    await withJobs((jobs, dev) => submit(jobs, dev, source, flags));
  });
}

/** Folders and text lists have no questions of their own. @throws UsageError */
function expectQuestions(source: string, { task, prompt }: Flags): void {
  if (task !== "ask" || prompt !== undefined || /\.(jsonl|ndjson|csv)$/i.test(source)) return;
  throw new UsageError(
    "--task ask: expected the question in --prompt, or a .jsonl or .csv list whose items have their own, got neither",
  );
}

type Jobs = Parameters<Parameters<typeof withJobs>[0]>[0];

async function submit(jobs: Jobs, dev: DevState | null, source: string, flags: Flags): Promise<void> {
  const jobId = flags.id ?? newJobId(new Date());
  const request = await requestFor(jobId, source, await chooseServed(flags, dev), {
    ...flags,
    generation: generationFrom(flags),
  });
  await jobs.submit(request);
  const planned = await jobs.planned(jobId);
  const problem = planned?.progress.problem ?? null;
  if (problem !== null) {
    const { JobError } = await import("../workers/job-client.ts");
    throw new JobError(`job ${jobId} failed: ${problem.type}: ${problem.message}`);
  }
  if (planned === null) tell(`job ${jobId} is submitted and not planned yet; see \`blipfleet job status ${jobId}\``);
  const unserved = await jobs.unserved(request);
  if (unserved.length > 0) {
    const { ref, dtype, settings } = request.model;
    tell(
      `job ${jobId} waits: no worker on ${unserved.join(", ")} (model ${fromHere(ref)}, ${dtype}); ` +
        `start one with \`blipfleet worker ${["--model", fromHere(ref), "--dtype", dtype, ...settingsAsFlags(settings)].join(" ")}\``,
    );
  }
  if (flags.watch) {
    await followJob(jobs, jobId, flags.format);
  } else if (flags.format === "jsonl") {
    writeJson(planned === null ? { job_id: jobId, state: "planning" } : statusFields(planned.progress));
  } else {
    writeLine(planned === null ? jobId : statusLine(planned.progress));
  }
}

interface Served {
  readonly ref: string;
  readonly dtype: Dtype;
  readonly settings?: RunSettings;
}

/** --model, --dtype and settings; without any of them what the worker of `blipfleet dev` has loaded. */
async function chooseServed(flags: ModelFlags, dev: DevState | null): Promise<Served> {
  const { resolveDtype } = await import("./checkpoint-dtype.ts");
  const settings = settingsFrom(flags);
  const isOpen = flags.model === undefined && flags.dtype === "auto" && Object.keys(settings).length === 0;
  if (isOpen && dev !== null) return { ref: dev.model, dtype: dev.dtype, settings: settingsFrom(dev.settings ?? {}) };
  const { ref, notice } = chooseModel(flags.model ?? dev?.model);
  if (notice !== null) tell(notice);
  return { ref, dtype: await resolveDtype(ref, flags.dtype), settings };
}

/**
 * What is submitted. The checkpoint's digest, which names the queues of workers that have it, is computed here.
 * @throws CheckpointError, ConfigError, WeightsError, UnsupportedModelError, PathError, UsageError
 */
export async function requestFor(
  jobId: string,
  source: string,
  { ref, dtype, settings = {} }: Served,
  options: Partial<Pick<JobRequest, "task" | "topology" | "prompt" | "generation" | "chunkSize" | "window">> = {},
): Promise<JobRequest> {
  const { cacheFolder, jobFolderUri } = await import("../jobs/roots.ts");
  const { checkModel } = await import("../models/model-card.ts");
  const { openCheckpoint } = await import("../weights/checkpoint.ts");
  const { purposeOfTask } = await import("../workers/activities/model-text.ts");
  const { task = "caption", topology = "fused" } = options;
  const { card } = await checkModel(await openCheckpoint(ref), dtype, {
    cacheFolder: cacheFolder(),
    purpose: purposeOfTask[task],
    settings,
  });
  if (topology === "split" && card.handsOver === "features") {
    throw new UsageError(
      `--topology split: expected a model whose query is a stage of its own, got ${ref}, which hands its features to generate; ` +
        "leave it out",
    );
  }
  return {
    jobId,
    task,
    model: { ref, digest: card.digest, dtype, ...(card.settings && { settings: card.settings }) },
    topology,
    prompt: options.prompt ?? null,
    generation: options.generation ?? defaultGeneration,
    source: /^\w+:\/\//.test(source) ? source : pathToFileURL(resolve(source)).href,
    folder: jobFolderUri(jobId),
    chunkSize: options.chunkSize ?? defaultChunkSize,
    window: options.window ?? defaultWindow,
  };
}

/** e.g. 20260314-101500-3fa2: sorts by time, and two of one second differ. */
export function newJobId(now: Date): string {
  const [date = "", time = ""] = now.toISOString().replace(/[-:]/g, "").slice(0, 15).split("T");
  return `${date}-${time}-${randomBytes(2).toString("hex")}`;
}
