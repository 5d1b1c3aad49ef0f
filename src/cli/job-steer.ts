// blipfleet job pause|resume|cancel|retry ID

import type { Command } from "commander";
import { withJobs } from "./job-connection.ts";
import { followJob } from "./job-follow.ts";
import { addFormatOption, type FormatFlag } from "./model-options.ts";
import { tell } from "./output.ts";

export function addSteeringCommands(job: Command): void {
  job
    .command("pause")
    .description("Start no more of a job; what is in flight ends.")
    .argument("<id>", "name of the job")
    .action((id: string) =>
      withJobs(async (jobs) => {
        await jobs.pause(id);
        tell(`job ${id} is pausing; \`blipfleet job resume ${id}\` goes on`);
      }),
    );
  job
    .command("resume")
    .description("Go on with a paused job.")
    .argument("<id>", "name of the job")
    .action((id: string) =>
      withJobs(async (jobs) => {
        await jobs.resume(id);
        tell(`job ${id} goes on`);
      }),
    );
  job
    .command("cancel")
    .description("End a job now; what is committed stays and can be exported with --partial.")
    .argument("<id>", "name of the job")
    .action((id: string) =>
      withJobs(async (jobs) => {
        await jobs.cancel(id);
        tell(`job ${id} is being cancelled`);
      }),
    );
  addFormatOption(
    job
      .command("retry")
      .description("Run the items of an ended job again that failed or were never reached.")
      .argument("<id>", "name of the job")
      .option("--watch", "stay and show progress until the attempt has ended"),
  ).action((id: string, flags: FormatFlag & { readonly watch?: boolean }) =>
    withJobs(async (jobs) => {
      const { attempt, items } = await jobs.retry(id);
      tell(`job ${id}: attempt ${attempt} over ${items} ${items === 1 ? "item" : "items"}`);
      if (flags.watch) await followJob(jobs, id, flags.format);
    }),
  );
}
