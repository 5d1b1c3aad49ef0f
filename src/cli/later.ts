// Commands that are named but not there yet: one sentence, never a pretence.

import type { Command } from "commander";
import { NotAvailableError } from "./errors.ts";

const laterCommands = {
  eval: "evaluation",
  serve: "the HTTP server",
} as const;

/** Register the commands that end with exit status 2. */
export function addLaterCommands(program: Command): void {
  for (const [name, what] of Object.entries(laterCommands)) {
    program
      .command(name, { hidden: true })
      .argument("[anything...]")
      .allowUnknownOption()
      .allowExcessArguments()
      .helpOption(false)
      .action(() => {
        throw new NotAvailableError(`${name}: ${what} is not available yet; see \`blipfleet --help\` for what is`);
      });
  }
}
