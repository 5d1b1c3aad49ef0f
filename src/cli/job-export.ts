// blipfleet job export ID

import { once } from "node:events";
import { createWriteStream } from "node:fs";
import { mkdir, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { finished } from "node:stream/promises";
import type { Command } from "commander";
import type { JobRecord } from "../messages/job.ts";
import { withJobs } from "./job-connection.ts";
import { tell } from "./output.ts";

interface Flags {
  readonly output?: string;
  readonly stats?: string;
  readonly partial?: boolean;
}

export function addExportCommand(job: Command): void {
  job
    .command("export")
    .description("Write a job's results as JSON lines, one per item, in the order of the input.")
    .argument("<id>", "name of the job")
    .option("--output <file>", "write there instead of to stdout")
    .option("--stats <file>", "also write which worker and adapter made each item")
    .option("--partial", "of a job that has not ended: what is there")
    .addHelpText(
      "after",
      `
Each line is {"id", "image", "status": "done", "text", "token_ids"} (with "question" when one was asked, and
"score" when --answers chose the text) or
{"id", "image", "status": "failed", "error": {"type", "message"}}. Exit status 1 when some failed.

Example:
  blipfleet job export holidays --output captions.jsonl
`,
    )
    .action((id: string, flags: Flags) =>
      withJobs(async (jobs) => {
        const { progress } = await jobs.status(id);
        const { problem, records } = progress;
        if (problem !== null && records.every(({ manifest }) => manifest === null)) {
          const { JobError } = await import("../workers/job-client.ts");
          throw new JobError(
            `export: expected results of ${id}, got a job that failed: ${problem.type}: ${problem.message}`,
          );
        }
        const { failed, done } = await exportJob(progress.records, flags);
        if (flags.output !== undefined)
          tell(`${done + failed} results in ${flags.output}${failed > 0 ? `, ${failed} failed` : ""}`);
        if (failed > 0) process.exitCode = 1;
      }),
    );
}

/** @throws IncompleteJobError, StoreError */
export async function exportJob(
  records: readonly JobRecord[],
  flags: Flags,
): Promise<{ done: number; failed: number }> {
  const { attemptsOf, countResults, exportLines, statsLines } = await import("../jobs/results.ts");
  const attempts = await attemptsOf(records);
  const options = { partial: flags.partial ?? false };
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
