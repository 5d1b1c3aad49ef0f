// Ctrl-C, for commands that work in this process.

import { setMaxListeners } from "node:events";
import { InterruptedError } from "./errors.ts";

/**
 * Ctrl-C gives work up at the next submit boundary; a second one ends the process at once.
 * @param what came of it, for the sentence that is told
 */
export function stopOnInterrupt(what: string): { readonly signal: AbortSignal; forget(): void } {
  const abort = new AbortController();
  setMaxListeners(0, abort.signal); // every row under way listens
  const onSignal = () => {
    process.once("SIGINT", () => process.exit(130));
    abort.abort(new InterruptedError(`interrupted; ${what}`));
  };
  process.once("SIGINT", onSignal);
  process.once("SIGTERM", onSignal);
  return {
    signal: abort.signal,
    forget() {
      process.off("SIGINT", onSignal);
      process.off("SIGTERM", onSignal);
    },
  };
}
