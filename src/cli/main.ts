// Runs the command line. Every command closes what it opened and leaves its exit status in process.exitCode.

import { watchStdout } from "./output.ts";
import { createProgram, exitStatus, tellError } from "./program.ts";

watchStdout();
try {
  await createProgram().parseAsync(process.argv);
  process.exitCode ??= exitStatus.allDone;
} catch (error) {
  process.exitCode = tellError(error, process.argv.slice(2));
}
// a handle that a library left open must not keep the shell waiting; what was written goes out first
process.stdout.write("", () => process.exit());
