// What was measured, as a table.

import type { AdapterReport } from "../gpu/adapter.ts";
import type { TuningTable } from "../gpu/tuning-table.ts";
import { variantName } from "../gpu/variants.ts";
import type { ClassResult } from "./measure.ts";

/** Variants of a class that a table keeps: one, and what to take where it fails. */
const kept = 4;

/**
 * A table of `results`, and of what `base` has for other classes.
 * @param base a table for the same adapter and driver; null: there is none
 * @param how the command and the clock
 */
export function newTable(
  base: TuningTable | null,
  report: AdapterReport,
  results: readonly ClassResult[],
  how: string,
): TuningTable {
  const { vendor, device, description } = report;
  const operations: Record<string, TuningTable["operations"][string]> = { ...base?.operations };
  for (const { operation, shapeClass, measured, candidates, chosen } of results) {
    const right = candidates.filter(({ problem, milliseconds }) => problem === null && milliseconds !== null);
    const others = right.filter(({ variant }) => variantName(variant) !== variantName(chosen.variant));
    const variants = [chosen, ...others.slice(0, kept - 1)].map(({ variant, milliseconds }) => {
      return { variant: { ...variant }, milliseconds: milliseconds === null ? null : rounded(milliseconds) };
    });
    operations[operation] = { ...operations[operation], [shapeClass]: { measured, variants } };
  }
  const date = new Date().toISOString().slice(0, 10);
  const adapter = base ? base.adapter : { vendor, device };
  return { format: 1, adapter, measured: { device, driver: description, date, how }, operations };
}

/** Three digits, which is more than a measurement repeats. */
function rounded(milliseconds: number): number {
  return Number(milliseconds.toPrecision(3));
}
