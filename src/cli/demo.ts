// blipfleet demo: the whole of it once: servers, a worker, a job over the example images, its captions, a few answers, and
// the end.

import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import type { Command } from "commander";
import { packageRoot } from "../gpu/package-root.ts";
import type { Dtype } from "../stages.ts";
import { UsageError } from "./errors.ts";
import { addModelOptions, chooseModel, type ModelFlags } from "./model-options.ts";
import { fromHere, oneLine, tell, writeLine } from "./output.ts";

type Flags = ModelFlags & { readonly output: string; readonly images: string };

const examples = join(packageRoot, "examples");

/** What the demo model is asked after the captions of the examples; other pictures show other things. */
const exampleQuestions = {
  image: "scene-07.png",
  questions: ["how many boats are there?", "where is the car?", "what colour is the background?"],
} as const;

/** Items a chunk: progress is told chunk by chunk, and there are two dozen images. */
const demoChunk = 4;

export function addDemoCommand(program: Command): void {
  const command = program
    .command("demo")
    .description("Caption the example images as a job on servers of its own, show what happened, and stop everything.")
    .option("--images <folder>", "caption these instead", join(examples, "images"))
    .option("--output <file>", "where the results go", join("blipfleet-data", "demo-captions.jsonl"));
  addModelOptions(command);
  command.addHelpText(
    "after",
    "\nExamples:\n  npm run demo\n  blipfleet demo --images ~/photos --model Salesforce/blip2-opt-2.7b\n",
  );
  command.action(demo);
}

async function demo(flags: Flags): Promise<void> {
  if (!existsSync(flags.images))
    throw new UsageError(`--images: expected a folder of images, got no such folder ${flags.images}`);
  const { resolveDtype } = await import("./checkpoint-dtype.ts");
  const { startDevStack } = await import("./dev-stack.ts");
  const { ref, notice } = chooseModel(flags.model);
  if (notice !== null) tell(notice);
  const dtype = await resolveDtype(ref, flags.dtype);
  const folder = mkdtempSync(join(tmpdir(), "blipfleet-demo-"));
  try {
    const stack = await startDevStack({ folder, models: [ref], dtype, roots: [flags.images], durable: false, tell });
    const interrupt = () => {
      tell("stopping");
      void stack.stop().then(() => process.exit(130));
    };
    process.once("SIGINT", interrupt);
    process.once("SIGTERM", interrupt);
    try {
      const job = captionAll(stack.environment, flags, { ref, dtype }, stack.uiUrl);
      const problem = await Promise.race([job, stack.broken]);
      if (problem !== null) throw new DemoError(`demo: expected its servers to stay, got: ${problem}`);
    } finally {
      process.off("SIGINT", interrupt);
      process.off("SIGTERM", interrupt);
      tell("stopping worker, Temporal and nats-server");
      await stack.stop();
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** One of the demo's servers ended before the demo did. */
class DemoError extends Error {
  override name = "DemoError";
}

/** Submit, follow, export and print. @returns null when it is done */
async function captionAll(
  environment: Readonly<Record<string, string>>,
  flags: Flags,
  model: { readonly ref: string; readonly dtype: Dtype },
  uiUrl: string | undefined,
): Promise<null> {
  // what follows is what `blipfleet job submit --watch` and `job export` do, with these addresses
  Object.assign(process.env, environment);
  const { withJobs } = await import("./job-connection.ts");
  const { exportJob } = await import("./job-export.ts");
  const { followJob } = await import("./job-follow.ts");
  const { stageLines } = await import("./job-lines.ts");
  const { newJobId, requestFor } = await import("./job-submit.ts");
  const isTrained = dirname(resolve(model.ref)) === join(packageRoot, "models");
  const isExamples = resolve(flags.images) === join(examples, "images");
  await withJobs(async (jobs) => {
    const jobId = `demo-${newJobId(new Date())}`;
    tell(`submitting ${fromHere(flags.images)} as job ${jobId}${uiUrl === undefined ? "" : `; Temporal UI ${uiUrl}`}`);
    const request = await requestFor(jobId, flags.images, model, { chunkSize: demoChunk });
    await jobs.submit(request);
    const { records, stages, failed } = await followJob(jobs, jobId, "text");
    await exportJob(records, { output: flags.output });
    const results = await readResults(flags.output);
    for (const line of captionLines(results, isTrained && isExamples ? await trueCaptions() : null)) writeLine(line);
    if (isTrained && isExamples) {
      const { image, questions } = exampleQuestions;
      const ask = (question: string, i: number) =>
        jobs.answer(`${jobId}-question-${i + 1}`, {
          image: pathToFileURL(resolve(flags.images, image)).href,
          question,
          model: request.model,
        });
      const answers = await Promise.all(questions.map(ask));
      const width = Math.max(...questions.map((question) => question.length));
      for (const [i, question] of questions.entries())
        writeLine(`${image}  ${question.padEnd(width)}  ${oneLine(answers[i]?.text ?? "")}`);
    }
    for (const line of stageLines(stages)) writeLine(line);
    writeLine(`results      ${fromHere(resolve(flags.output))}`);
    if (uiUrl !== undefined) writeLine(`Temporal UI  ${uiUrl} (until this ends; \`blipfleet dev\` keeps one)`);
    if (failed > 0) process.exitCode = 1;
  });
  return null;
}

/** One line of the job's results. */
export interface DemoResult {
  readonly image: string;
  readonly text?: string;
  readonly error?: { readonly message: string };
}

async function readResults(file: string): Promise<DemoResult[]> {
  return jsonLines<DemoResult>(file);
}

/** file name -> what the example shows, in the demo model's words */
async function trueCaptions(): Promise<Map<string, string>> {
  const lines = await jsonLines<{ image: string; text: string }>(join(examples, "captions.jsonl"));
  return new Map(lines.map(({ image, text }) => [basename(image), text]));
}

async function jsonLines<Line>(file: string): Promise<Line[]> {
  const { readFile } = await import("node:fs/promises");
  const lines = (await readFile(file, "utf8")).trimEnd().split("\n");
  return lines.map((line): Line => JSON.parse(line));
}

/**
 * Captions beside file names; beside what is true, too, where that is known, with a last line that counts.
 * @param truths file name -> true caption
 */
export function captionLines(results: readonly DemoResult[], truths: ReadonlyMap<string, string> | null): string[] {
  const said = ({ text, error }: DemoResult) => (text === undefined ? `failed: ${error?.message}` : oneLine(text));
  const nameWidth = Math.max(...results.map(({ image }) => image.length));
  const textWidth = Math.max(...results.map((result) => said(result).length));
  const lines = results.map((result) => {
    const { image, text } = result;
    const line = `${image.padEnd(nameWidth)}  ${said(result)}`;
    if (truths === null) return line;
    const truth = truths.get(image);
    return `${line.padEnd(nameWidth + 2 + textWidth)}  ${isTrue(text, truth) ? "true" : `not true: ${truth}`}`;
  });
  if (truths === null) return lines;
  const right = results.filter(({ image, text }) => isTrue(text, truths.get(image))).length;
  return [...lines, `${right} of ${results.length} captions are true`];
}

/** Whether a caption says what the true one does; the order in which things are named says nothing. */
export function isTrue(caption: string | undefined, truth: string | undefined): boolean {
  if (caption === undefined || truth === undefined) return false;
  const parts = (text: string) =>
    text
      .split(/, | and | on /)
      .sort()
      .join();
  return parts(caption) === parts(truth);
}
