// blipfleet job: large jobs on a fleet, or on the servers of `blipfleet dev`.

import type { Command } from "commander";
import { addExportCommand } from "./job-export.ts";
import { addStatusCommand, addWatchCommand } from "./job-follow.ts";
import { addSteeringCommands } from "./job-steer.ts";
import { addSubmitCommand } from "./job-submit.ts";

export function addJobCommand(program: Command): void {
  const job = program
    .command("job")
    .description("Submit, follow, steer and export jobs over many images.")
    .addHelpText(
      "after",
      `
Jobs run on the Temporal server of TEMPORAL_ADDRESS, or on \`blipfleet dev\` of this machine when that is not set.

Examples:
  blipfleet job submit photos --watch
  blipfleet job export 20260314-101500-ab12 --output captions.jsonl
`,
    );
  addSubmitCommand(job);
  addStatusCommand(job);
  addWatchCommand(job);
  addSteeringCommands(job);
  addExportCommand(job);
}
