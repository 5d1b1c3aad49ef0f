// A device that finds a table of its own machine in its cache folder, as `blipfleet tune` would have left it.

import { mkdirSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { findAdapter } from "../../src/gpu/adapter.ts";
import { type Gpu, openGpu } from "../../src/gpu/device.ts";
import { ownTableFile, type TuningTable } from "../../src/gpu/tuning-table.ts";
import type { Variant } from "../../src/gpu/variants.ts";

/** By operation and class of shapes, the variants in the order in which they are to be tried. */
export type TestOperations = Readonly<Record<string, Readonly<Record<string, readonly Variant[]>>>>;

export function testTable(operations: TestOperations): TuningTable {
  const entries = Object.entries(operations).map(([name, classes]) => {
    const listed = Object.entries(classes).map(([shapeClass, variants]) => [
      shapeClass,
      { measured: "a test's choice", variants: variants.map((variant) => ({ variant, milliseconds: null })) },
    ]);
    return [name, Object.fromEntries(listed)];
  });
  return { format: 1, adapter: null, measured: null, operations: Object.fromEntries(entries) };
}

/** Leave a table, or a text in its place, in a cache folder. @returns the file */
export async function leaveOwnTable(cacheFolder: string, table: TuningTable | string): Promise<string> {
  const { report } = await findAdapter(true);
  const file = ownTableFile(cacheFolder, report);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, typeof table === "string" ? table : JSON.stringify(table));
  return file;
}

/** @param tell told what the device has to say about its variants */
export async function openWithTable(
  cacheFolder: string,
  table: TuningTable | string,
  tell: (line: string) => void,
): Promise<Gpu> {
  await leaveOwnTable(cacheFolder, table);
  return openGpu({ nap: true, cacheFolder, tell });
}
