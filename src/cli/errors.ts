// What a user of the command line did wrong, or asked for too early: one sentence and exit status 2.

/** Wrong use: an unknown flag, a value out of range, a command that cannot run as asked. */
export class UsageError extends Error {
  override name = "UsageError";
}

/** Something that this version does not have yet. */
export class NotAvailableError extends UsageError {
  override name = "NotAvailableError";
}

/** A command was interrupted by the user. */
export class InterruptedError extends Error {
  override name = "InterruptedError";
}

/** What a line of output or of a log says about an error: class and sentence. */
export function describeError(error: unknown): { readonly type: string; readonly message: string } {
  if (error instanceof Error) return { type: error.name, message: error.message };
  return { type: "Error", message: String(error) };
}
