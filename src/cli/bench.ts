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
  /** ours / peer; of `kernels` how many times faster ours is */
  readonly ratio: number | null;
  /** The peer without this adapter, on the machine's CPU. */
  readonly cpu?: number | null;
  /** What the adapter's limits would allow at least, as a part of ours: 1 is the limit. */
  readonly ofLimit?: number | null;
  /** Milliseconds of the first run, compilation included: ours and the peer's. */
  readonly first?: number | null;
  readonly peerFirst?: number | null;
  /** Which of the peer's ways was its fastest. */
  readonly peerSetting?: string | null;
}

export interface BenchOptions {
  /** Of a generated index; default: as many as the bench says. */
  readonly images?: number;
  /** Only rows whose names contain it; of `kernels`. */
  readonly rowsWith?: string;
  /** A checkpoint to measure instead of a generated one; of `full-size`. */
  readonly checkpoint?: string;
  /** Told what all rows have in common: adapter, versions. It is written beside them. */
  readonly about?: (facts: Readonly<Record<string, unknown>>) => void;
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
  kernels: ["kernels"],
  "full-size": ["full-size"],
  batching: ["batching"],
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
      "Measure this machine: images per second here and through a job, prompt store, cost per dispatch, search, kernels, a full-size model, batching.",
    )
    .option("--only <name>", `one bench: ${Object.keys(benches).join(", ")}`)
    .option(
      "--images <count>",
      "images of the index that `search` generates",
      wholeNumber("--images", 1000, 100_000_000),
    )
    .option("--rows-with <text>", "only rows of `kernels` whose names contain this")
    .option("--checkpoint <folder>", "a checkpoint for `full-size`, else it writes one and removes it again")
    .option("--json <file>", "also write {command, rows: [{name, ours, peer, unit, ratio}]} to a file")
    .addHelpText(
      "after",
      `
search generates an index of a million images, or --images, in the temporary folder, three times over: 10.7 GB, removed again.
It runs only when it is named.
kernels compares with onnxruntime-node on the same adapter, which npm installs into the cache folder the first time (290 MB); it
takes some minutes on a CPU driver, and a free machine, and runs only when it is named.
full-size loads a checkpoint of 7.5 GB in the shapes of BLIP-2 with OPT-2.7b, and captions an image: it needs as much disk and
1.25 times as much memory, takes minutes on a CPU driver, and runs only when it is named.

Examples:
  npm run bench -- --only pipeline --json pipeline.json
  npm run bench -- --only search --images 100000
  npm run bench -- --only kernels --rows-with "matmul vit-g" --json kernels.json
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
  const facts: Record<string, unknown> = {};
  const about: BenchOptions["about"] = (more) => Object.assign(facts, more);
  for (const name of names) {
    const path = fileURLToPath(new URL(`../../bench/${name}.js`, import.meta.url));
    if (!existsSync(path))
      throw new UsageError(`bench: expected bench/${name}.ts in this build, got none; run it in a clone`);
    tell(`bench: ${name}`);
    const module: BenchModule = await import(path);
    rows.push(...(await module.rows({ ...options, about })));
  }
  for (const line of table(rows)) writeLine(line);
  const command = ["npm", "run", "bench", "--", ...process.argv.slice(3)].join(" ");
  if (json !== undefined) writeFileSync(json, `${JSON.stringify({ command, ...facts, rows }, null, 2)}\n`);
}

/** Columns that only some benches fill. */
const extraColumns = [
  ["cpu", (row: BenchRow) => row.cpu],
  ["of limit", (row: BenchRow) => row.ofLimit],
  ["first ms", (row: BenchRow) => row.first],
  ["peer's", (row: BenchRow) => row.peerFirst],
  ["peer's setting", (row: BenchRow) => row.peerSetting],
] as const;

/** Columns as wide as their widest cell, numbers to the right. */
export function table(rows: readonly BenchRow[]): string[] {
  const cell = (value: number | string | null | undefined) =>
    typeof value === "number" ? value.toPrecision(4) : (value ?? "");
  const extra = extraColumns.filter(([, of]) => rows.some((row) => (of(row) ?? null) !== null));
  const cells = [
    ["name", "ours", "peer", "unit", "ratio", ...extra.map(([name]) => name)],
    ...rows.map((row) => [
      row.name,
      ...[row.ours, row.peer, row.unit, row.ratio].map(cell),
      ...extra.map(([, of]) => cell(of(row))),
    ]),
  ];
  const widths = (cells[0] ?? []).map((_, column) => Math.max(...cells.map((row) => row[column]?.length ?? 0)));
  const texts = new Set(["name", "unit", "peer's setting"]);
  const left = (cells[0] ?? []).map((name) => texts.has(name));
  return cells.map((row) =>
    row
      .map((text, column) => (left[column] ? text.padEnd(widths[column] ?? 0) : text.padStart(widths[column] ?? 0)))
      .join("  ")
      .trimEnd(),
  );
}
