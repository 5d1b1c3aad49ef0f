// Which variant of a kernel runs: the first of the tables that this adapter has not refused.

import type { z } from "zod";
import { type AdapterReport, adapterLine } from "./adapter.ts";
import { KernelError } from "./errors.ts";
import type { TableFile } from "./tuning-table.ts";

/** What tells one variant of a kernel from another: the shader where there are several, and values for its constants. */
export type Variant = Readonly<Record<string, number | string>>;

/** What a variant may ask of an adapter beyond what every adapter has. */
export interface Needs {
  readonly features?: readonly string[];
  /** The least invocations of a subgroup. */
  readonly subgroup?: number;
  /** By limit, the least value. */
  readonly limits?: Readonly<Record<string, number>>;
  /** What no list says: why it does not fit an adapter, or null. */
  readonly unfit?: (report: AdapterReport) => string | null;
}

/** A kernel that comes in variants. All compute the same; which is fastest depends on the adapter and the shapes. */
export interface Operation<V extends Variant = Variant> {
  readonly name: string;
  /** Few: every class that a model meets compiles pipelines of its own. */
  readonly classes: readonly string[];
  /** What a table may say. */
  readonly variant: z.ZodType<V>;
  /** A variant that asks for more than the adapter has is passed over, and that is no fault. Left out: nothing. */
  needs?(variant: V): Needs;
}

/** The variant that was taken for a launch. */
export interface Choice<V extends Variant = Variant> {
  readonly operation: string;
  readonly shapeClass: string;
  readonly variant: V;
  /** File of the table that it is in. */
  readonly table: string;
  /** Say that it does not work here, once and for all its classes: the next is taken from now on. */
  refuse(reason: string): void;
}

/** A variant that failed on this adapter; plain JSON. */
export interface Refusal {
  readonly operation: string;
  readonly variant: Variant;
  readonly reason: string;
}

/** What is in use, for doctor and logs; plain JSON. */
export interface VariantReport {
  /** The tables in the order in which they are asked: their files, with what they were measured, and "operation, class" of each entry. */
  readonly tables: readonly {
    readonly file: string;
    readonly measured: TableFile["table"]["measured"];
    readonly classes: readonly string[];
  }[];
  /** What was chosen so far. */
  readonly choices: readonly Omit<Choice, "refuse">[];
  readonly refused: readonly Refusal[];
}

/** Equal for equal variants, whatever the order of their constants. */
export function variantName(variant: Variant): string {
  const parts = Object.entries(variant).sort(([a], [b]) => (a < b ? -1 : 1));
  return parts.map(([name, value]) => `${name}=${value}`).join(" ");
}

export class Variants {
  readonly tables: readonly TableFile[];
  /** Tests the variants that come after refused ones before anything is computed with them; set once a test has passed. */
  retest: (() => Promise<void>) | undefined = undefined;
  readonly report: AdapterReport;
  readonly #tell: (line: string) => void;
  readonly #chosen = new Map<string, Choice>();
  readonly #refused = new Map<string, Refusal>();
  #retesting = false;

  /**
   * @param tables asked in this order
   * @param tell told one line about every variant that is refused
   */
  constructor(tables: readonly TableFile[], report: AdapterReport, tell: (line: string) => void) {
    this.tables = tables;
    this.report = report;
    this.#tell = tell;
  }

  /** @throws KernelError when no variant is left, with the reasons of all refusals */
  choose<V extends Variant>(operation: Operation<V>, shapeClass: string): Choice<V> {
    const key = `${operation.name}, ${shapeClass}`;
    const known = this.#chosen.get(key);
    // What is under this key was made below, for this operation.
    if (known) return known as Choice<V>;
    const reasons: string[] = [];
    for (const { file, table } of this.tables) {
      for (const { variant: given } of table.operations[operation.name]?.[shapeClass]?.variants ?? []) {
        const read = operation.variant.safeParse(given);
        // As the operation reads it, so that what a table leaves out has a value.
        const variant = read.success ? read.data : given;
        const refusal = this.#refused.get(refusalKey(operation.name, variant));
        if (refusal) {
          reasons.push(`${variantName(variant)}: ${refusal.reason}`);
          continue;
        }
        if (!read.success) {
          const problem = read.error.issues.map(({ path, message }) => `${path.join(".")}: ${message}`).join("; ");
          this.#refuse(operation.name, given, `${file}: ${problem}`);
          reasons.push(`${variantName(given)}: ${problem}`);
          continue;
        }
        const missing = missingOf(this.report, operation.needs?.(read.data) ?? {});
        if (missing !== null) {
          reasons.push(`${variantName(variant)}: ${missing}`);
          continue;
        }
        const choice: Choice<V> = Object.freeze({
          operation: operation.name,
          shapeClass,
          variant: read.data,
          table: file,
          refuse: (reason: string) => this.#refuse(operation.name, variant, reason),
        });
        this.#chosen.set(key, choice);
        return choice;
      }
    }
    const tried = reasons.length > 0 ? [...new Set(reasons)].join("\n") : "no table has one";
    throw new KernelError(
      `${key}: expected a variant that works on ${adapterLine(this.report)}, got none that is left:\n${tried}`,
    );
  }

  /**
   * The same choices, but this variant of `operation` for all its classes and no other. Only what tunes and tests wants that.
   * @param tell told about it if it is refused
   */
  with<V extends Variant>(operation: Operation<V>, variant: V, tell: (line: string) => void): Variants {
    const entry = { measured: "chosen by hand", variants: [{ variant, milliseconds: null }] };
    const only = { [operation.name]: Object.fromEntries(operation.classes.map((name) => [name, entry])) };
    const first: TableFile = {
      file: "chosen by hand",
      table: { format: 1, adapter: null, measured: null, operations: only },
    };
    const others = this.tables.map(({ file, table }): TableFile => {
      const { [operation.name]: _, ...operations } = table.operations;
      return { file, table: { ...table, operations } };
    });
    return new Variants([first, ...others], this.report, tell);
  }

  get refused(): readonly Refusal[] {
    return [...this.#refused.values()];
  }

  /** What was refused in an earlier process, with the same tables; told again. */
  restore(refused: readonly Refusal[]): void {
    for (const { operation, variant, reason } of refused) this.#refuse(operation, variant, reason);
  }

  /** See `retest`; nothing while it is under way or before it was set. */
  async testNext(): Promise<void> {
    if (this.#retesting || !this.retest) return;
    this.#retesting = true;
    try {
      await this.retest();
    } finally {
      this.#retesting = false;
    }
  }

  describe(): VariantReport {
    return {
      tables: this.tables.map(({ file, table: { measured, operations } }) => {
        const classes = Object.entries(operations).flatMap(([name, of]) =>
          Object.keys(of).map((each) => `${name}, ${each}`),
        );
        return { file, measured, classes };
      }),
      choices: [...this.#chosen.values()].map(({ refuse: _, ...choice }) => choice),
      refused: this.refused,
    };
  }

  #refuse(operation: string, variant: Variant, reason: string): void {
    const key = refusalKey(operation, variant);
    if (this.#refused.has(key)) return;
    this.#refused.set(key, { operation, variant, reason });
    for (const [at, choice] of this.#chosen) {
      if (refusalKey(choice.operation, choice.variant) === key) this.#chosen.delete(at);
    }
    this.#tell(`kernels: ${refusalLine({ operation, variant, reason })}`);
  }
}

/** What of these needs an adapter does not have, or null. */
export function missingOf(
  report: AdapterReport,
  { features = [], subgroup = 1, limits = {}, unfit = () => null }: Needs,
): string | null {
  const absent = features.filter((feature) => !report.features.includes(feature));
  if (absent.length > 0) return `needs ${absent.join(", ")}`;
  const { subgroupMinSize } = report;
  if (subgroupMinSize < subgroup) return `needs subgroups of ${subgroup}, got ${subgroupMinSize}`;
  for (const [name, least] of Object.entries(limits)) {
    const got = report.limits[name] ?? 0;
    if (got < least) return `needs ${name} of ${least}, got ${got}`;
  }
  return unfit(report);
}

function refusalKey(operation: string, variant: Variant): string {
  return `${operation} ${variantName(variant)}`;
}

/** One sentence for stderr, doctor and logs. */
export function refusalLine({ operation, variant, reason }: Refusal): string {
  return `${operation} (${variantName(variant)}) is refused on this adapter, the next variant is taken: ${reason}`;
}
