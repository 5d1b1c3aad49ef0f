// Texts that stand on the command line.

import { UsageError } from "./errors.ts";

/**
 * Refuse an empty text, which is most often a shell variable that has no value.
 * @param name the argument's or flag's
 * @throws UsageError
 */
export function expectTextsGiven(name: string, texts: readonly string[]): void {
  if (!texts.includes("")) return;
  throw new UsageError(`${name}: expected a text, got an empty one; write it, or set the shell variable that it is in`);
}
