// blipfleet demo: the whole of it once: servers, a worker, a job over the example images, its captions, and the end.

import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import type { Command } from "commander";
import { packageRoot } from "../gpu/package-root.ts";
import { UsageError } from "./errors.ts";
import { addModelOptions, chooseModel, type ModelFlags } from "./model-options.ts";
import { fromHere, oneLine, tell, writeLine } from "./output.ts";

type Flags = ModelFlags & { readonly output: string; readonly images: string };

/** Items a chunk: progress is told chunk by chunk, and there are two dozen images. */
const demoChunk = 4;

export function addDemoCommand(program: Command): void {
  const command = program
    .command("demo")
    .description("Caption the example images as a job on servers of its own, show what happened, and stop everything.")
    .option("--images <folder>", "caption these instead", join(packageRoot, "examples", "images"))
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
    const stack = await startDevStack({ folder, model: ref, dtype, roots: [flags.images], durable: false, tell });
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
  model: { readonly ref: string; readonly dtype: "f32" | "f16" },
  uiUrl: string | undefined,
): Promise<null> {
  // what follows is what `blipfleet job submit --watch` and `job export` do, with these addresses
  Object.assign(process.env, environment);
  const { withJobs } = await import("./job-connection.ts");
  const { exportJob } = await import("./job-export.ts");
  const { followJob } = await import("./job-follow.ts");
  const { stageLines } = await import("./job-lines.ts");
  const { newJobId, requestFor } = await import("./job-submit.ts");
  await withJobs(async (jobs) => {
    const jobId = `demo-${newJobId(new Date())}`;
    tell(`submitting ${fromHere(flags.images)} as job ${jobId}${uiUrl === undefined ? "" : `; Temporal UI ${uiUrl}`}`);
    await jobs.submit(await requestFor(jobId, flags.images, model, { chunkSize: demoChunk }));
    const { records, stages, failed } = await followJob(jobs, jobId, "text");
    await exportJob(records, { output: flags.output });
    await printCaptions(flags.output);
    for (const line of stageLines(stages)) writeLine(line);
    writeLine(`results      ${fromHere(resolve(flags.output))}`);
    if (uiUrl !== undefined) writeLine(`Temporal UI  ${uiUrl} (until this ends; \`blipfleet dev\` keeps one)`);
    if (failed > 0) process.exitCode = 1;
  });
  return null;
}

async function printCaptions(file: string): Promise<void> {
  const { readFile } = await import("node:fs/promises");
  const lines = (await readFile(file, "utf8")).trimEnd().split("\n");
  const results = lines.map((line): { image: string; text?: string; error?: { message: string } } => JSON.parse(line));
  const width = Math.max(...results.map(({ image }) => image.length));
  for (const { image, text, error } of results)
    writeLine(`${image.padEnd(width)}  ${text === undefined ? `failed: ${error?.message}` : oneLine(text)}`);
}
