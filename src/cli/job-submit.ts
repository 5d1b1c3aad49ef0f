// blipfleet job submit SOURCE

import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { type Command, Option } from "commander";
import { defaultThreshold } from "../filtering.ts";
import type { Asked, JobRequest, ModelIdentity, Task, Topology } from "../messages/job.ts";
import type { Purpose } from "../models/families.ts";
import { type CheckpointCard, type Dtype, defaultGeneration, type RunSettings } from "../stages.ts";
import { type AnswersFlags, addAnswersOptions, answersOf } from "./answer-list.ts";
import type { DevState } from "./dev-state.ts";
import { UsageError } from "./errors.ts";
import { addFilterOptions, type FilterFlags } from "./filter-options.ts";
import {
  addGenerationOptions,
  type GenerationFlags,
  generationFrom,
  givenGenerationFlags,
  samplingGenerationFrom,
  wholeNumber,
} from "./generation-options.ts";
import { addImageFolderOption, type ImageFolderFlag } from "./image-folder-option.ts";
import { withJobs } from "./job-connection.ts";
import { followJob } from "./job-follow.ts";
import { statusFields, statusLine, unservedLines } from "./job-lines.ts";
import {
  addFormatOption,
  addModelOptions,
  addSettingsOptions,
  chooseModel,
  type FormatFlag,
  type ModelFlags,
  settingsFrom,
} from "./model-options.ts";
import { tell, writeJson, writeLine } from "./output.ts";
import { repeated } from "./repeated.ts";
import { addTemplateOption, type TemplateFlag } from "./template-option.ts";
import { expectTextsGiven } from "./texts-given.ts";

interface Flags
  extends ModelFlags,
    FormatFlag,
    GenerationFlags,
    FilterFlags,
    ImageFolderFlag,
    TemplateFlag,
    Omit<AnswersFlags, "allScores"> {
  readonly task: Task;
  readonly prompt?: string;
  readonly text?: readonly string[];
  readonly label?: readonly string[];
  readonly index?: string;
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

const tasks: readonly Task[] = ["caption", "ask", "match", "classify", "index", "capfilt"];

/** Flags that belong to some tasks only. Generation's belong to those that write texts. */
const flagsOfTasks: readonly { readonly name: keyof Flags; readonly flag: string; readonly tasks: readonly Task[] }[] =
  [
    { name: "prompt", flag: "--prompt", tasks: ["caption", "ask", "capfilt"] },
    { name: "answers", flag: "--answers", tasks: ["ask"] },
    { name: "text", flag: "--text", tasks: ["match"] },
    { name: "label", flag: "--label", tasks: ["classify"] },
    { name: "template", flag: "--template", tasks: ["classify"] },
    { name: "index", flag: "--index", tasks: ["index"] },
    { name: "filterModel", flag: "--filter-model", tasks: ["capfilt"] },
    { name: "threshold", flag: "--threshold", tasks: ["capfilt"] },
  ];

export function addSubmitCommand(job: Command): void {
  const command = job
    .command("submit")
    .description("Start a job over a folder of images, a text list of paths, a JSONL or a CSV file.")
    .argument(
      "<source>",
      "folder, .txt (a path a line), .jsonl ({image, id?, prompt?, text? or texts?, labels?}) or .csv (image, id?, prompt?, text?)",
    )
    .addOption(new Option("--task <task>", "what is done with every image").choices(tasks).default("caption"))
    .option(
      "--prompt <text>",
      "caption, capfilt: text that captions continue; ask: the question; for items without their own",
    )
    .option("--text <text>", "match: for items without texts of their own (may be repeated)", repeated)
    .option("--label <text...>", "classify: for items without labels of their own (may be repeated)", repeated)
    .option("--index <file>", "index: an index whose images need not be encoded again; need not be there yet")
    .addOption(
      new Option(
        "--topology <topology>",
        "fused: one stage makes what the next needs; split: encode and query on different workers",
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
  addModelOptions(command, "the demo model that fits the task");
  addSettingsOptions(command);
  addImageFolderOption(command);
  addTemplateOption(command, "classify: ");
  addFilterOptions(command);
  addFormatOption(command);
  addAnswersOptions(command, "ask: ");
  addGenerationOptions(command);
  command.addHelpText(
    "after",
    `
Images must lie below the workers' BLIPFLEET_ROOTS (with \`blipfleet dev\`: below its --root). \`job export\` gives the results.

capfilt draws captions with --top-p 0.9 unless generation flags say otherwise; see \`blipfleet capfilt --help\`.

Examples:
  blipfleet job submit photos --watch
  blipfleet job submit list.jsonl --task ask --prompt "What is in the picture?" --id questions-1
  blipfleet job submit photos --task ask --prompt "What animal is it?" --answers animals.txt
  blipfleet job submit pairs.csv --task match --id pairs-1
  blipfleet job submit photos --task classify --label cat dog --template "a photo of a {}" --model openai/clip-vit-base-patch32
  blipfleet job submit photos --task index --index photos.index --id index-1
  blipfleet job submit web.jsonl --task capfilt --threshold 0.6
`,
  );
  command.action(async (source: string, flags: Flags) => {
    expectFlagsOfTask(flags, givenGenerationFlags(command));
    expectTexts(source, flags);
    expectTextsGiven("--text", flags.text ?? []);
    expectTextsGiven("--label", flags.label ?? []);
    const answers = answersOf(flags, givenGenerationFlags(command));
    await withJobs((jobs, dev) => submit(jobs, dev, source, flags, answers));
  });
}

/** @throws UsageError for a flag of other tasks */
function expectFlagsOfTask(flags: Flags, generation: readonly string[]): void {
  const { task } = flags;
  const given = flagsOfTasks.filter(({ name }) => flags[name] !== undefined);
  const writers = { flag: generation[0] ?? "", tasks: ["caption", "ask", "capfilt"] as readonly Task[] };
  const wrong = [...given, ...(generation.length > 0 ? [writers] : [])].find((each) => !each.tasks.includes(task));
  if (wrong === undefined) return;
  throw new UsageError(
    `${wrong.flag}: expected --task ${wrong.tasks.join(" or ")} beside it, got ${task}; leave it out`,
  );
}

/** Folders and text lists have no questions, texts and labels of their own. @throws UsageError */
function expectTexts(source: string, { task, prompt, text, label }: Flags): void {
  if (/\.(jsonl|ndjson|csv)$/i.test(source)) return;
  if (task === "ask" && prompt === undefined) {
    throw new UsageError(
      "--task ask: expected the question in --prompt, or a .jsonl or .csv list whose items have their own, got neither",
    );
  }
  if (task === "match" && text === undefined) {
    throw new UsageError(
      "--task match: expected texts in --text, or a .jsonl or .csv list whose items have their own, got neither",
    );
  }
  if (task === "classify" && label === undefined) {
    throw new UsageError(
      "--task classify: expected labels in --label, or a .jsonl or .csv list whose items have their own, got neither",
    );
  }
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
  const { task, text, label, template: templates, index, images } = flags;
  const texts = text ?? label;
  const { purposeOfTask } = await import("../workers/activities/model-text.ts");
  const request = await requestFor(jobId, source, await chooseServed(flags, purposeOfTask[task], dev), {
    ...{ task, topology: flags.topology, chunkSize: flags.chunkSize, window: flags.window },
    prompt: flags.prompt ?? null,
    generation: task === "capfilt" ? samplingGenerationFrom(flags) : generationFrom(flags),
    ...(answers && { answerList: { lines: answers, keep: flags.keepAnswers } }),
    ...(texts === undefined ? {} : { texts }),
    ...(templates === undefined ? {} : { templates }),
    ...(index === undefined ? {} : { known: uriOf(index) }),
    ...(images === undefined ? {} : { imageFolder: uriOf(images) }),
    ...(task === "capfilt" ? { filter: await chooseFilter(flags, dev) } : {}),
  });
  await jobs.submit(request);
  const planned = await jobs.planned(jobId);
  if (planned === null) tell(`job ${jobId} is submitted and not planned yet; see \`blipfleet job status ${jobId}\``);
  const unserved = await unservedLines(jobs, request);
  for (const line of unserved) tell(line);
  if (flags.watch) {
    await followJob(jobs, jobId, flags.format, unserved);
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

/** --model, --dtype and settings; without any of them what the worker of `blipfleet dev` has loaded for it, else the demo model. */
async function chooseServed(flags: ModelFlags, purpose: Purpose, dev: DevState | null): Promise<Served> {
  const { resolveDtype } = await import("./checkpoint-dtype.ts");
  const given = settingsFrom(flags);
  const loaded = dev?.models.find(({ purposes }) => purposes.includes(purpose));
  const isOpen = flags.model === undefined && flags.dtype === "auto" && Object.keys(given).length === 0;
  const settings = flags.model === undefined && loaded ? { ...settingsFrom(dev?.settings ?? {}), ...given } : given;
  if (isOpen && loaded !== undefined) return { ...loaded, settings };
  const { ref, notice } = chooseModel(flags.model ?? loaded?.ref, purpose);
  if (notice !== null) tell(notice);
  return { ref, dtype: await resolveDtype(ref, flags.dtype), settings };
}

async function chooseFilter(flags: Flags, dev: DevState | null): Promise<Served & { readonly threshold: number }> {
  const { filterModel: model, dtype, imageSize, behaviour } = flags;
  const chosen = { dtype, imageSize, behaviour, ...(model && { model }) };
  return { ...(await chooseServed(chosen, "matches", dev)), threshold: flags.threshold ?? defaultThreshold };
}

/** What of a request has a default. */
type RequestOptions = Partial<
  Pick<
    JobRequest,
    | "task"
    | "topology"
    | "prompt"
    | "generation"
    | "chunkSize"
    | "window"
    | "texts"
    | "templates"
    | "known"
    | "imageFolder"
  >
> & {
  readonly filter?: Served & { readonly threshold: number };
  readonly answerList?: { readonly lines: readonly string[]; readonly keep: number | undefined };
};

/**
 * What is submitted. The checkpoint's digest, which names the queues of workers that have it, is computed here.
 * @throws CheckpointError, ConfigError, WeightsError, UnsupportedModelError, PathError, UsageError
 */
export async function requestFor(
  jobId: string,
  source: string,
  { ref, dtype, settings = {} }: Served,
  options: RequestOptions = {},
): Promise<JobRequest> {
  const { jobFolderUri } = await import("../jobs/roots.ts");
  const { purposeOfTask } = await import("../workers/activities/model-text.ts");
  const { keepAnswers } = await import("../jobs/answer-lists.ts");
  const { task = "caption", topology = "fused", answerList, filter } = options;
  const { texts, templates, known, imageFolder } = options;
  const card = await cardOf({ ref, dtype, settings }, purposeOfTask[task]);
  if (topology === "split" && "handsOver" in card && card.handsOver === "features") {
    throw new UsageError(
      `--topology split: expected a model whose query is a stage of its own, got ${ref}, which hands its features to generate; ` +
        "leave it out",
    );
  }
  const answers = answerList && {
    ...(await keepAnswers(answerList.lines)),
    ...(answerList.keep !== undefined && { keep: answerList.keep }),
  };
  return {
    jobId,
    task,
    ...(answers && { answers }),
    // An index names its model by an absolute path, and export may run elsewhere.
    model: identityOf(task === "index" && existsSync(ref) ? resolve(ref) : ref, card),
    topology,
    prompt: options.prompt ?? null,
    generation: options.generation ?? defaultGeneration,
    ...(texts === undefined ? {} : { texts }),
    ...(templates === undefined ? {} : { templates }),
    ...(known === undefined ? {} : { known }),
    ...(imageFolder === undefined ? {} : { imageFolder }),
    ...(filter === undefined ? {} : { filter: await judgedBy(filter) }),
    source: uriOf(source),
    folder: jobFolderUri(jobId),
    chunkSize: options.chunkSize ?? defaultChunkSize,
    window: options.window ?? defaultWindow,
  };
}

/** What is a URI stays one. */
function uriOf(path: string): string {
  return /^\w+:\/\//.test(path) ? path : pathToFileURL(resolve(path)).href;
}

async function judgedBy({
  threshold,
  ...served
}: Served & { readonly threshold: number }): Promise<NonNullable<Asked["filter"]>> {
  return { model: identityOf(served.ref, await cardOf(served, "matches")), threshold };
}

/** What names a model to workers. */
function identityOf(ref: string, { digest, dtype, settings }: CheckpointCard): ModelIdentity {
  return { ref, digest, dtype, ...(settings && { settings }) };
}

async function cardOf({ ref, dtype, settings = {} }: Served, purpose: Purpose) {
  const { cacheFolder } = await import("../jobs/roots.ts");
  const { checkModel } = await import("../models/model-card.ts");
  const { openCheckpoint } = await import("../weights/checkpoint.ts");
  return (await checkModel(await openCheckpoint(ref), dtype, { cacheFolder: cacheFolder(), purpose, settings })).card;
}

/** e.g. 20260314-101500-3fa2: sorts by time, and two of one second differ. */
export function newJobId(now: Date): string {
  const [date = "", time = ""] = now.toISOString().replace(/[-:]/g, "").slice(0, 15).split("T");
  return `${date}-${time}-${randomBytes(2).toString("hex")}`;
}
