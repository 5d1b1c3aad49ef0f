// blipfleet tune: measure the kernels' variants on this machine, and write the table that they are chosen from.

import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { type Command, Option } from "commander";
import type { Gpu } from "../gpu/device.ts";
import type { TuningTable } from "../gpu/tuning-table.ts";
import type { Candidate, ClassResult, Clock } from "../tuning/measure.ts";
import type { TunedOperation } from "../tuning/tuned-operation.ts";
import { UsageError } from "./errors.ts";
import { addFormatOption, type FormatFlag } from "./model-options.ts";
import { fromHere, tell, writeJson, writeLine } from "./output.ts";

interface Flags extends FormatFlag {
  readonly output?: string;
  readonly only?: string;
  readonly quick?: boolean;
  readonly clock: Clock;
}

/** Seconds of timing for one class of shapes. */
const patience = { whole: 5, quick: 1 };

export function addTuneCommand(program: Command): void {
  const command = program
    .command("tune")
    .description("Measure the kernels' variants on this machine, and choose the fastest from now on.")
    .option(
      "--output <file>",
      "write the table to this file; default: to the cache folder, where every command finds it",
    )
    .option("--only <pattern>", "only classes of shapes whose names contain this, as `matmul, f16`")
    .option("--quick", "small cases and few variants, for a first look")
    .addOption(
      new Option("--clock <clock>", "wall, or processor: time of all threads, on a CPU driver that is not alone")
        .choices(["wall", "processor"])
        .default("wall"),
    );
  addFormatOption(command);
  command
    .addHelpText(
      "after",
      `
Every variant's answer is compared with one in double precision before it is timed. Of variants that are equally fast up to
noise (5 %), or up to 25 % slower but compiled in half the time, classes share one, so that little is compiled. The rest of the
machine should be idle; on a CPU driver it takes some minutes. \`blipfleet doctor\` shows what is in use. To go back, delete the file.

Examples:
  blipfleet tune
  blipfleet tune --quick --only "f16, 1 row"
  blipfleet tune --output tuning.json --format jsonl
`,
    )
    .action(tune);
}

async function tune(flags: Flags): Promise<void> {
  const { operations } = await import("../tuning/operations.ts");
  const classes = operations
    .flatMap((operation) => operation.classes.map((shapeClass) => ({ operation, shapeClass })))
    .filter(({ operation, shapeClass }) => `${operation.name}, ${shapeClass}`.includes(flags.only ?? ""));
  if (classes.length === 0) {
    const all = operations.flatMap(({ name, classes: names }) => names.map((each) => `${name}, ${each}`));
    throw new UsageError(`--only: expected a part of one of ${all.join("; ")}, got ${JSON.stringify(flags.only)}`);
  }
  // Mesa would answer from its cache, and a slow compilation look like a quick one.
  process.env.MESA_SHADER_CACHE_DISABLE ??= "true";
  const { openGpu } = await import("../gpu/device.ts");
  // The table that is to be replaced does not take part.
  const gpu = await openGpu({ nap: true, tell });
  try {
    if (flags.clock === "processor" && !gpu.report.softwareAdapter) {
      throw new UsageError("--clock processor: expected a CPU driver, got a GPU, whose time it does not count");
    }
    const { file, base } = await target(gpu, flags);
    const results = await measureAll(gpu, classes, flags);
    for (const result of results) {
      if (flags.format === "jsonl") writeJson(jsonOf(result));
      else writeLine(textOf(result));
    }
    const { newTable } = await import("../tuning/new-table.ts");
    const how = `${commandLine(flags)}, medians of ${flags.clock} time`;
    const table = newTable(base, gpu.report, results, how);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, `${JSON.stringify(table, null, 2)}\n`);
    tell(`tune: wrote ${fromHere(file)}${flags.output === undefined ? ", which is used from now on" : ""}`);
  } finally {
    gpu.close();
  }
}

/** Where the table goes, and what is there already. @throws UsageError where that cannot be kept beside it */
async function target(gpu: Gpu, { output, only }: Flags): Promise<{ file: string; base: TuningTable | null }> {
  const { ownTableFile, readTable } = await import("../gpu/tuning-table.ts");
  const { cacheFolder } = await import("../jobs/roots.ts");
  const file = output ?? ownTableFile(cacheFolder(), gpu.report);
  if (!existsSync(file)) return { file, base: null };
  let base: TuningTable;
  try {
    base = readTable(file).table;
  } catch (error) {
    // Only what was named is not to be lost.
    if (output === undefined && only === undefined) return { file, base: null };
    throw new UsageError(`${error instanceof Error ? error.message : error}; name another file, or delete it`);
  }
  const { driver } = base.measured ?? {};
  if (only !== undefined && driver !== undefined && driver !== gpu.report.description) {
    throw new UsageError(
      `--only: expected ${file} to be of this driver, ${gpu.report.description}, got ${driver}; leave --only out`,
    );
  }
  return { file, base: only === undefined ? { ...base, operations: {} } : base };
}

async function measureAll(
  gpu: Gpu,
  classes: readonly { readonly operation: TunedOperation; readonly shapeClass: string }[],
  { quick = false, clock }: Flags,
): Promise<ClassResult[]> {
  const { chooseTogether, measureClass } = await import("../tuning/measure.ts");
  const { softwareAdapter, report } = gpu;
  const adapter = { softwareAdapter, lanes: report.subgroupMaxSize || (softwareAdapter ? 8 : 32), quick };
  const seconds = quick ? patience.quick : patience.whole;
  const results: ClassResult[] = [];
  for (const [i, { operation, shapeClass }] of classes.entries()) {
    tell(`tune: ${i + 1} of ${classes.length}: ${operation.name}, ${shapeClass}`);
    const result = await measureClass(gpu, operation, shapeClass, adapter, { clock, seconds });
    results.push(result);
    tell(`tune: fastest of ${result.candidates.length}: ${textOf(result)}`);
    for (const { problem } of result.candidates) {
      if (problem !== null) tell(`tune: ${operation.name}, ${shapeClass}: left out: ${problem}`);
    }
  }
  return chooseTogether(results);
}

/** How many times as fast as what ran before; null where that did not work. */
function speedup({ usual, chosen }: ClassResult): number | null {
  if (!usual?.milliseconds || !chosen.milliseconds) return null;
  return usual.milliseconds / chosen.milliseconds;
}

function jsonOf(result: ClassResult): Record<string, unknown> {
  const { operation, shapeClass, measured, usual, chosen, candidates } = result;
  return {
    operation,
    shape_class: shapeClass,
    measured,
    chosen: chosen.variant,
    milliseconds: chosen.milliseconds,
    default: usual?.variant ?? null,
    default_milliseconds: usual?.milliseconds ?? null,
    speedup: speedup(result),
    candidates,
  };
}

function textOf(result: ClassResult): string {
  const { operation, shapeClass, measured, usual, chosen } = result;
  const times = speedup(result);
  const gain =
    usual === null
      ? "no default works here"
      : times === null
        ? `the default, ${named(usual)}, does not work here`
        : times === 1
          ? "the default"
          : `${times.toFixed(2)} times as fast as the default, ${named(usual)}`;
  return `${operation}, ${shapeClass}: ${named(chosen)}, ${chosen.milliseconds?.toPrecision(3)} ms of ${measured}; ${gain}`;
}

/** A variant for people: values alone say little, so names stay. */
function named({ variant }: Candidate): string {
  return Object.entries(variant)
    .map(([name, value]) => `${name} ${value}`)
    .join(" ");
}

function commandLine({ only, quick }: Flags): string {
  return ["blipfleet tune", ...(quick ? ["--quick"] : []), ...(only === undefined ? [] : [`--only ${only}`])].join(" ");
}
