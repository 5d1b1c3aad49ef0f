// Tables of kernel variants: which are fast for which operation and class of shapes, on which adapter. Data, measured by
// `blipfleet tune`: tuning/*.json of the package, and a user's own in the cache folder.

import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import type { AdapterReport } from "./adapter.ts";
import { KernelError } from "./errors.ts";
import { packageRoot } from "./package-root.ts";

const entry = z.strictObject({
  /** Values for constants of a shader; what they may be, the operation knows. */
  variant: z.record(z.string(), z.union([z.number(), z.string()])),
  /** Median of one run; null where it has not been measured. */
  milliseconds: z.number().positive().nullable(),
});

const shapeClass = z.strictObject({
  /** The case that was timed, or why these variants and no others. */
  measured: z.string(),
  /** The fastest first; the next is taken where one is refused. */
  variants: z.array(entry).min(1),
});

const tableSchema = z.strictObject({
  format: z.literal(1),
  /** Adapters whose vendor is this and whose device begins so. null: a fallback, named by its file. */
  adapter: z.strictObject({ vendor: z.string(), device: z.string() }).nullable(),
  /** null: nobody has measured it, it is a guess. */
  measured: z
    .strictObject({
      /** As the adapter tells it. */
      device: z.string(),
      driver: z.string(),
      date: z.iso.date(),
      how: z.string(),
    })
    .nullable(),
  /** Operation -> class of shapes -> variants. */
  operations: z.record(z.string(), z.record(z.string(), shapeClass)),
});

export type TuningTable = z.infer<typeof tableSchema>;

/** A table and the file that it came from. */
export interface TableFile {
  readonly file: string;
  readonly table: TuningTable;
}

/** Folder of the tables that come with the package. */
export const shippedTables = join(packageRoot, "tuning");

/** The tables for adapters that have none of their own. */
const fallbacks = { software: "software.json", gpu: "gpu.json" } as const;

/** @throws KernelError naming the file and what was expected of it */
export function readTable(file: string): TableFile {
  try {
    return { file, table: tableSchema.parse(JSON.parse(readFileSync(file, "utf8"))) };
  } catch (cause) {
    const problem =
      cause instanceof z.ZodError
        ? cause.issues.map(({ path, message }) => `${path.join(".")}: ${message}`).join("; ")
        : String(cause);
    throw new KernelError(`${file}: expected a tuning table, got ${problem}`, { cause });
  }
}

/** The table for CPU drivers or for GPUs of which nothing is known. @throws KernelError */
export function fallbackTable(softwareAdapter: boolean): TableFile {
  return readTable(join(shippedTables, fallbacks[softwareAdapter ? "software" : "gpu"]));
}

/** The tables of the package for this adapter, the nearest first. @throws KernelError */
export function tablesFor(report: AdapterReport): TableFile[] {
  const own = readdirSync(shippedTables)
    .filter((name) => name.endsWith(".json"))
    .sort()
    .map((name) => readTable(join(shippedTables, name)))
    .filter(({ table: { adapter } }) => adapter !== null && fits(adapter, report));
  return [...own, fallbackTable(report.softwareAdapter)];
}

function fits(adapter: { readonly vendor: string; readonly device: string }, report: AdapterReport): boolean {
  return adapter.vendor === report.vendor && report.device.startsWith(adapter.device);
}

/** Where `blipfleet tune` puts the table of this adapter with this driver. @param folder the cache folder */
export function ownTableFile(folder: string, { vendor, device, description }: AdapterReport): string {
  const digest = createHash("sha256")
    .update(JSON.stringify([vendor, device, description]))
    .digest("hex");
  const name = `${vendor} ${device}`.replace(/[^A-Za-z0-9]+/g, "-").replace(/^-|-$/g, "");
  return join(folder, "tuning", `${name}-${digest.slice(0, 8)}.json`);
}

/** The table that `blipfleet tune` made here for this adapter, or null. @throws KernelError */
export function ownTable(folder: string, report: AdapterReport): TableFile | null {
  const file = ownTableFile(folder, report);
  return existsSync(file) ? readTable(file) : null;
}
