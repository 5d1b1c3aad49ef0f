// What can be wrong with a job's files. All but StoreError are the caller's mistakes: the same call fails again.

/** A path or URI that a job may not use, or that names nothing usable. */
export class PathError extends Error {
  override readonly name = "PathError";
}

/** An input list that cannot become a job. `problems` are the first ones found; `count` is how many there are. */
export class ManifestError extends Error {
  override readonly name = "ManifestError";
  readonly problems: readonly string[];
  readonly count: number;

  constructor(message: string, problems: readonly string[] = [], count = problems.length, options?: ErrorOptions) {
    super(message, options);
    this.problems = problems;
    this.count = count;
  }
}

/** The job's folder misbehaves: not writable, or an object whose bytes are not those that were committed. */
export class StoreError extends Error {
  override readonly name = "StoreError";
}

/** An export that would leave items out. `missing` of `total` items have no result yet. */
export class IncompleteJobError extends Error {
  override readonly name = "IncompleteJobError";
  readonly missing: number;
  readonly total: number;

  constructor(message: string, missing: number, total: number) {
    super(message);
    this.missing = missing;
    this.total = total;
  }
}

/** The `code` of a file system error, e.g. ENOENT. */
export function errorCode(error: unknown): string | undefined {
  if (!(error instanceof Error) || !("code" in error)) return undefined;
  return typeof error.code === "string" ? error.code : undefined;
}
