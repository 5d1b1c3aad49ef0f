// blipfleet job status ID, blipfleet job watch ID

import type { Command } from "commander";
import type { JobProgress } from "../messages/job.ts";
import { InterruptedError } from "./errors.ts";
import { withJobs } from "./job-connection.ts";
import { failureLines, mayWait, stageLines, statusFields, statusLine, unservedLines } from "./job-lines.ts";
import { addFormatOption, type FormatFlag, type OutputFormat } from "./model-options.ts";
import { tell, writeJson, writeLine } from "./output.ts";
import { Progress } from "./progress.ts";

type Jobs = Parameters<Parameters<typeof withJobs>[0]>[0];

export function addStatusCommand(job: Command): void {
  addFormatOption(job.command("status").description("Say how a job stands.").argument("<id>", "name of the job"))
    .addHelpText("after", "\nExample:\n  blipfleet job status holidays --format jsonl\n")
    .action((id: string, { format }: FormatFlag) =>
      withJobs(async (jobs) => {
        const { progress } = await jobs.status(id);
        if (format === "jsonl") {
          writeJson(statusFields(progress));
          return;
        }
        writeLine(statusLine(progress));
        const unserved = mayWait(progress) ? await unservedLines(jobs, progress.request) : [];
        const { stages, waiting } = progress;
        for (const line of [...stageLines(stages), ...failureLines(progress), ...waiting, ...unserved])
          writeLine(`  ${line}`);
      }),
    );
}

export function addWatchCommand(job: Command): void {
  addFormatOption(
    job.command("watch").description("Show a job's progress until it has ended.").argument("<id>", "name of the job"),
  )
    .addHelpText("after", "\nCtrl-C ends the watching, not the job.\n\nExample:\n  blipfleet job watch holidays\n")
    .action(async (id: string, { format }: FormatFlag) => {
      await withJobs((jobs) => followJob(jobs, id, format));
    });
}

/**
 * Show progress on stderr until the job has ended, then its last standing on stdout. Exit status 1 unless all is done.
 * @param told lines that the user has seen already
 * @returns the last standing
 * @throws InterruptedError after Ctrl-C
 */
export async function followJob(
  jobs: Jobs,
  jobId: string,
  format: OutputFormat,
  told: Iterable<string> = [],
): Promise<JobProgress> {
  const abort = new AbortController();
  const interrupt = () =>
    abort.abort(
      new InterruptedError(`no longer watching; job ${jobId} goes on, see \`blipfleet job status ${jobId}\``),
    );
  process.once("SIGINT", interrupt);
  let bar: Progress | null = null;
  let waiting: string | null = null;
  const seen = new Set(told);
  let isFailureTold = false;
  let last: JobProgress | null = null;
  try {
    for await (const { progress } of jobs.watch(jobId, { signal: abort.signal })) {
      last = progress;
      if (progress.state === "planning") continue;
      if (bar === null) {
        bar = new Progress(progress.total, { noun: "images" });
        bar.resume(progress.done, progress.failed);
      }
      const [first = ""] = progress.waiting;
      if (first !== waiting && mayWait(progress)) {
        waiting = first;
        bar.clear();
        if (first !== "") tell(first);
        for (const line of await unservedLines(jobs, progress.request)) {
          if (!seen.has(line)) tell(line);
          seen.add(line);
        }
      }
      if (!isFailureTold && progress.firstFailure !== undefined) {
        isFailureTold = true;
        bar.clear();
        for (const line of failureLines(progress)) tell(line);
      }
      bar.set(progress.done, progress.failed);
    }
  } catch (error) {
    if (abort.signal.aborted) throw abort.signal.reason;
    throw error;
  } finally {
    process.off("SIGINT", interrupt);
    bar?.clear();
  }
  if (last === null) throw new InterruptedError(`job ${jobId}: expected at least one status, got none`);
  if (format === "jsonl") writeJson(statusFields(last));
  else writeLine(statusLine(last));
  if (last.state !== "done" || last.failed > 0) process.exitCode = 1;
  return last;
}
