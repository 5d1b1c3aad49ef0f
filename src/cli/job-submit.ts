// blipfleet job submit SOURCE

import { randomBytes } from "node:crypto";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { type Command, Option } from "commander";
import type { JobRequest, Topology } from "../messages/job.ts";
import { type Dtype, defaultGeneration } from "../stages.ts";
import { type AnswersFlags, addAnswersOptions, answersOf } from "./answer-list.ts";
import type { DevState } from "./dev-state.ts";
import { UsageError } from "./errors.ts";
import {
  addGenerationOptions,
  type GenerationFlags,
  generationFrom,
  givenGenerationFlags,
  wholeNumber,
} from "./generation-options.ts";
import { withJobs } from "./job-connection.ts";
import { followJob } from "./job-follow.ts";
import { statusFields, statusLine } from "./job-lines.ts";
import { addFormatOption, addModelOptions, chooseModel, type FormatFlag, type ModelFlags } from "./model-options.ts";
import { fromHere, tell, writeJson, writeLine } from "./output.ts";

interface Flags extends ModelFlags, FormatFlag, GenerationFlags, Omit<AnswersFlags, "allScores"> {
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
  addFormatOption(command);
  addAnswersOptions(command, "ask: ");
  addGenerationOptions(command);
  command.addHelpText(
    "after",
    `
Images must lie below the workers' BLIPFLEET_ROOTS (with \`blipfleet dev\`: below its --root).

Examples:
  blipfleet job submit photos --watch
  blipfleet job submit list.jsonl --task ask --prompt "What is in the picture?" --id questions-1
  blipfleet job submit photos --task ask --prompt "What animal is it?" --answers animals.txt
`,
  );
  command.action(async (source: string, flags: Flags) => {
    expectQuestions(source, flags);
    if (flags.answers !== undefined && flags.task !== "ask") {
      throw new UsageError("--answers: expected --task ask beside it, got caption");
    }
    const answers = answersOf(flags, givenGenerationFlags(command));
    await withJobs((jobs, dev) => submit(jobs, dev, source, flags, answers));
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

async function submit(
  jobs: Jobs,
  dev: DevState | null,
  source: string,
  flags: Flags,
  answers: readonly string[] | null,
): Promise<void> {
  const jobId = flags.id ?? newJobId(new Date());
  const request = await requestFor(jobId, source, await chooseServed(flags, dev), {
    ...flags,
    generation: generationFrom(flags),
    ...(answers && { answerList: { lines: answers, keep: flags.keepAnswers } }),
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
    const { ref, dtype } = request.model;
    tell(
      `job ${jobId} waits: no worker on ${unserved.join(", ")} (model ${fromHere(ref)}, ${dtype}); ` +
        `start one with \`blipfleet worker --model ${fromHere(ref)} --dtype ${dtype}\``,
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
}

/** --model and --dtype; without --model what the worker of `blipfleet dev` has loaded. */
async function chooseServed(flags: ModelFlags, dev: DevState | null): Promise<Served> {
  const { resolveDtype } = await import("./checkpoint-dtype.ts");
  if (flags.model === undefined && flags.dtype === "auto" && dev !== null) return { ref: dev.model, dtype: dev.dtype };
  const { ref, notice } = chooseModel(flags.model ?? dev?.model);
  if (notice !== null) tell(notice);
  return { ref, dtype: await resolveDtype(ref, flags.dtype) };
}

/**
 * What is submitted. The checkpoint's digest, which names the queues of workers that have it, is computed here.
 * @throws CheckpointError, ConfigError, WeightsError, UnsupportedModelError, PathError, UsageError
 */
export async function requestFor(
  jobId: string,
  source: string,
  { ref, dtype }: Served,
  options: Partial<Pick<JobRequest, "task" | "topology" | "prompt" | "generation" | "chunkSize" | "window">> & {
    readonly answerList?: { readonly lines: readonly string[]; readonly keep: number | undefined };
  } = {},
): Promise<JobRequest> {
  const { cacheFolder, jobFolderUri } = await import("../jobs/roots.ts");
  const { checkModel } = await import("../models/model-card.ts");
  const { openCheckpoint } = await import("../weights/checkpoint.ts");
  const { keepAnswers } = await import("../jobs/answer-lists.ts");
  const { purposeOfTask } = await import("../workers/activities/model-text.ts");
  const { task = "caption", topology = "fused" } = options;
  const { card } = await checkModel(await openCheckpoint(ref), dtype, {
    cacheFolder: cacheFolder(),
    purpose: purposeOfTask[task],
  });
  if (topology === "split" && card.handsOver === "features") {
    throw new UsageError(
      `--topology split: expected a model whose query is a stage of its own, got ${ref}, which hands its features to generate; ` +
        "leave it out",
    );
  }
  const { answerList } = options;
  const answers = answerList && {
    ...(await keepAnswers(answerList.lines)),
    ...(answerList.keep !== undefined && { keep: answerList.keep }),
  };
  return {
    jobId,
    task,
    ...(answers && { answers }),
    model: { ref, digest: card.digest, dtype },
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
