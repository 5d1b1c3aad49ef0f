// The flags by which texts are kept or dropped: of `capfilt` and of `job submit --task capfilt`.

import type { Command } from "commander";
import { defaultThreshold } from "../filtering.ts";
import { numberBetween } from "./generation-options.ts";

export interface FilterFlags {
  readonly filterModel?: string;
  readonly threshold?: number;
}

/** Without defaults of commander's, so that a flag given to another task shows. */
export function addFilterOptions(command: Command): void {
  command
    .option(
      "--filter-model <ref>",
      "capfilt: the model that judges texts (default: the demo model with a matching head)",
    )
    .option(
      "--threshold <itm>",
      `capfilt: a text is kept from this matching probability on (default: ${defaultThreshold})`,
      numberBetween("--threshold", 0, 1),
    );
}
