// blipfleet bench: what this machine does, side by side with a peer or with the plain way of doing the same.

import { existsSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Command } from "commander";
import { UsageError } from "./errors.ts";
import { wholeNumber } from "./generation-options.ts";
import { tell, writeLine } from "./output.ts";

/** One comparison. A row without a peer is a figure of its own. */
export interface BenchRow {
  readonly name: string;
  readonly ours: number;
  readonly peer: number | null;
  readonly unit: string;
  /** ours / peer */
  readonly ratio: number | null;
}

export interface BenchOptions {
  /** Of a generated index; default: as many as the bench says. */
  readonly images?: number;
}

/** A module below bench/ has this one function; it says on stderr what it is doing. */
interface BenchModule {
  rows(options: BenchOptions): Promise<readonly BenchRow[]>;
}

/** Which modules below bench/ make up a bench. */
const benches: Readonly<Record<string, readonly string[]>> = {
  pipeline: ["pipeline", "prompt-store", "encode-cost"],
  "prompt-store": ["prompt-store"],
  "encode-cost": ["encode-cost"],
  search: ["search"],
};
/** What runs when none is chosen; the rest takes too long or too much disk to come unasked. */
const unasked = ["pipeline"];

interface Flags extends BenchOptions {
  readonly only?: string;
  readonly json?: string;
}

export function addBenchCommand(program: Command): void {
  program
    .command("bench")
    .description(
      "Measure this machine: images per second here and through a job, prompt store, cost per dispatch, search.",
    )
    .option("--only <name>", `one bench: ${Object.keys(benches).join(", ")}`)
    .option(
      "--images <count>",
      "images of the index that `search` generates",
      wholeNumber("--images", 1000, 100_000_000),
    )
    .option("--json <file>", "also write {command, rows: [{name, ours, peer, unit, ratio}]} to a file")
    .addHelpText(
      "after",
      `
search generates an index of a million images, or --images, in the temporary folder, three times over: 10.7 GB, removed again.
It runs only when it is named.

Examples:
  npm run bench -- --only pipeline --json pipeline.json
  npm run bench -- --only search --images 100000
`,
    )
    .action(bench);
}

async function bench({ only, json, ...options }: Flags): Promise<void> {
  const chosen = only === undefined ? unasked.map((name) => benches[name]) : [benches[only]];
  const names = [...new Set(chosen.flatMap((modules) => modules ?? []))];
  if (names.length === 0) {
    throw new UsageError(`--only: expected one of ${Object.keys(benches).join(", ")}, got ${JSON.stringify(only)}`);
  }
  const rows: BenchRow[] = [];
  for (const name of names) {
    const path = fileURLToPath(new URL(`../../bench/${name}.js`, import.meta.url));
    if (!existsSync(path))
      throw new UsageError(`bench: expected bench/${name}.ts in this build, got none; run it in a clone`);
    tell(`bench: ${name}`);
    const module: BenchModule = await import(path);
    rows.push(...(await module.rows(options)));
  }
  for (const line of table(rows)) writeLine(line);
  const command = ["npm", "run", "bench", "--", ...process.argv.slice(3)].join(" ");
  if (json !== undefined) writeFileSync(json, `${JSON.stringify({ command, rows }, null, 2)}\n`);
}

/** Columns as wide as their widest cell, numbers to the right. */
export function table(rows: readonly BenchRow[]): string[] {
  const number = (value: number | null) => (value === null ? "" : value.toPrecision(4));
  const cells = [
    ["name", "ours", "peer", "unit", "ratio"],
    ...rows.map(({ name, ours, peer, unit, ratio }) => [name, number(ours), number(peer), unit, number(ratio)]),
  ];
  const widths = [0, 1, 2, 3, 4].map((column) => Math.max(...cells.map((row) => row[column]?.length ?? 0)));
  return cells.map((row) =>
    row
      .map((cell, column) => {
        const width = widths[column] ?? 0;
        return column === 0 || column === 3 ? cell.padEnd(width) : cell.padStart(width);
      })
      .join("  ")
      .trimEnd(),
  );
}
