// --template TEXT: what stands around each label, here and in a job.

import type { Command } from "commander";
import { labelSlot } from "../classifying.ts";
import { UsageError } from "./errors.ts";

export interface TemplateFlag {
  /** Each with {} in it; left out: labels as they are. */
  readonly template?: readonly string[];
}

/** Add --template. @param when what must be there beside it, for its help */
export function addTemplateOption(command: Command, when = ""): Command {
  return command.option(
    "--template <text>",
    `${when}text around each label, {} in its place; may be repeated`,
    collectTemplate,
  );
}

function collectTemplate(template: string, before: readonly string[] = []): readonly string[] {
  if (template.includes(labelSlot)) return [...before, template];
  throw new UsageError(
    `--template: expected a text with ${labelSlot} in the place of the label, got ${JSON.stringify(template)}`,
  );
}
