// blipfleet job export ID

import { once } from "node:events";
import { createWriteStream } from "node:fs";
import { mkdir, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { finished } from "node:stream/promises";
import { type Command, Option } from "commander";
import { IncompleteJobError } from "../jobs/errors.ts";
import type { JobProgress, JobRecord } from "../messages/job.ts";
import type { WhenCoded } from "../search/vector-file-writer.ts";
import { UsageError } from "./errors.ts";
import { withJobs } from "./job-connection.ts";
import { fromHere, tell, writeLine } from "./output.ts";

interface LinesFlags {
  readonly output?: string;
  readonly stats?: string;
  readonly partial?: boolean;
  readonly kept?: boolean;
}

interface Flags extends LinesFlags {
  readonly index?: string;
  readonly vectors?: "full" | "int8";
  readonly codes?: WhenCoded;
}

export function addExportCommand(job: Command): void {
  job
    .command("export")
    .description("Write a job's results as JSON lines, one per item, in the order of the input.")
    .argument("<id>", "name of the job")
    .option("--output <file>", "write there instead of to stdout")
    .option("--stats <file>", "also write which worker and adapter made each item")
    .option("--partial", "of a job that has not ended: what is there")
    .option("--kept", "capfilt: only texts that are kept, the cleaned set")
    .option(
      "--index <file>",
      "index: put the images into this index, beside what it has; without --output and --stats no lines are written",
    )
    .addOption(new Option("--vectors <type>", "with --index, as `blipfleet index` has it").choices(["full", "int8"]))
    .addOption(
      new Option("--codes <when>", "with --index, as `blipfleet index` has it").choices(["auto", "always", "never"]),
    )
    .addHelpText(
      "after",
      `
Each line is {"id", "image", "status": "done", ...} with, by task:
  caption, ask   "text", "token_ids" (and "question"; "score" where --answers chose the text)
  match          "text", "itm", "itc", one line per text
  classify       "label", "logit", "probability", one line per label
  capfilt        "text", "source": "web" or "synthetic", "itm", "itc", "kept", "reason", one line per text
  index          "digest"; the vectors go into the file of --index
or {"id", "image", "status": "failed", "error": {"type", "message"}}. Exit status 1 when some failed.

Examples:
  blipfleet job export holidays --output captions.jsonl
  blipfleet job export index-1 --index photos.index
`,
    )
    .action((id: string, flags: Flags) =>
      withJobs(async (jobs) => {
        const { progress } = await jobs.status(id);
        const { problem, records } = progress;
        if (problem !== null && records.every(({ manifest }) => manifest === null)) {
          const { JobError } = await import("../workers/job-errors.ts");
          throw new JobError(
            `export: expected results of ${id}, got a job that failed: ${problem.type}: ${problem.message}`,
          );
        }
        expectFlagsOfTask(progress, flags);
        const { failed, done } = await exportResults(progress, flags).catch((error: unknown) => {
          throw endedEarly(progress, error);
        });
        if (flags.output !== undefined)
          tell(`results of ${done + failed} items in ${flags.output}${failed > 0 ? `, ${failed} failed` : ""}`);
        if (failed > 0) process.exitCode = 1;
      }),
    );
}

/** Of a job that was cancelled: results that are missing do not come by waiting. */
function endedEarly({ request: { jobId }, state }: JobProgress, error: unknown): unknown {
  if (!(error instanceof IncompleteJobError) || state !== "canceled") return error;
  const { missing, total } = error;
  const got = total === 0 ? "no manifest" : `${missing} without one`;
  return new IncompleteJobError(
    `export: expected a result for each of ${total} items, got ${got}, as ${jobId} was cancelled; ` +
      `export what is there with --partial, or run the rest with \`blipfleet job retry ${jobId}\``,
    missing,
    total,
  );
}

/** @throws UsageError for a flag of another task */
function expectFlagsOfTask({ request: { jobId, task } }: JobProgress, flags: Flags): void {
  const wrong =
    flags.index !== undefined && task !== "index" ? "--index" : flags.kept && task !== "capfilt" ? "--kept" : null;
  if (wrong !== null) {
    const wanted = wrong === "--index" ? "index" : "capfilt";
    throw new UsageError(`${wrong}: expected a job of --task ${wanted}, got ${jobId}, one of ${task}; leave it out`);
  }
  const lonely = (["vectors", "codes"] as const).find((name) => flags[name] !== undefined && flags.index === undefined);
  if (lonely !== undefined) throw new UsageError(`--${lonely}: expected --index beside it, got none; leave it out`);
}

/** Lines, an index, or both. */
async function exportResults(
  { records, request }: JobProgress,
  flags: Flags,
): Promise<{ readonly done: number; readonly failed: number }> {
  const { index: file, vectors, codes = "auto", partial = false } = flags;
  if (file === undefined) return exportJob(records, flags);
  const { attemptsOf, countResults } = await import("../jobs/results.ts");
  const { exportIndex } = await import("./indexing-export.ts");
  const attempts = await attemptsOf(records);
  const counts = await exportIndex(attempts, { file, model: request.model, vectors, codes, partial });
  writeLine(
    `${fromHere(file)}: ${counts.encoded} encoded, ${counts.kept} kept` +
      `${counts.failed > 0 ? `, ${counts.failed} failed` : ""}; ${counts.images} images in all`,
  );
  if (flags.output === undefined && flags.stats === undefined) return countResults(attempts);
  return exportJob(records, flags);
}

/** @throws IncompleteJobError, StoreError */
export async function exportJob(
  records: readonly JobRecord[],
  flags: LinesFlags,
): Promise<{ done: number; failed: number }> {
  const { attemptsOf, countResults, exportLines, statsLines } = await import("../jobs/results.ts");
  const attempts = await attemptsOf(records);
  const options = { partial: flags.partial ?? false, keptOnly: flags.kept ?? false };
  await writeLines(exportLines(attempts, options), flags.output);
  if (flags.stats !== undefined) await writeLines(statsLines(attempts, options), flags.stats);
  const { done, failed } = await countResults(attempts);
  return { done, failed };
}

/** To stdout, or to a file that is there whole or not at all. */
async function writeLines(lines: AsyncIterable<string>, file: string | undefined): Promise<void> {
  if (file === undefined) {
    for await (const line of lines) if (!process.stdout.write(line)) await once(process.stdout, "drain");
    return;
  }
  await mkdir(dirname(file), { recursive: true });
  const draft = `${file}.${process.pid}`;
  const stream = createWriteStream(draft);
  try {
    for await (const line of lines) if (!stream.write(line)) await once(stream, "drain");
    stream.end();
    await finished(stream);
    await rename(draft, file);
  } catch (error) {
    stream.destroy();
    await rm(draft, { force: true });
    throw error;
  }
}
