// blipfleet dev: the servers and one worker on this machine, until Ctrl-C.

import type { Command } from "commander";
import type { Dtype } from "../stages.ts";
import { addModelOptions, addSettingsOptions, chooseModel, type ModelFlags, settingsFrom } from "./model-options.ts";
import { tell, writeLine } from "./output.ts";

type Flags = ModelFlags & { readonly data: string; readonly root?: readonly string[] };

export function addDevCommand(program: Command): void {
  const command = program
    .command("dev")
    .description("Start Temporal, NATS and one worker here; `job` commands in other terminals find them.")
    .option("--data <folder>", "databases, logs and jobs; kept, so that jobs go on after a restart", "blipfleet-data")
    .option("--root <folder>", "jobs may read images below it; may be repeated (default: this folder)", collect);
  addModelOptions(command);
  addSettingsOptions(command);
  command.addHelpText(
    "after",
    "\nExamples:\n  blipfleet dev\n  blipfleet dev --model Salesforce/blip2-opt-2.7b --root ~/photos\n",
  );
  command.action(dev);
}

function collect(value: string, previous: readonly string[] = []): string[] {
  return [...previous, value];
}

async function dev(flags: Flags): Promise<void> {
  const { resolveDtype } = await import("./checkpoint-dtype.ts");
  const { startDevStack } = await import("./dev-stack.ts");
  const { removeDevState, writeDevState } = await import("./dev-state.ts");
  const { ref, notice } = chooseModel(flags.model);
  if (notice !== null) tell(notice);
  const dtype = await resolveDtype(ref, flags.dtype);
  const settings = settingsFrom(flags);
  const alive = setInterval(() => {}, 60_000); // the children alone do not keep this process
  const interrupted = new Promise<null>((resolve) => {
    for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => resolve(null));
  });
  const starting = startDevStack({
    folder: flags.data,
    model: ref,
    dtype,
    settings,
    roots: flags.root ?? ["."],
    durable: true,
    tell,
  });
  const stack = await Promise.race([starting, interrupted]);
  if (stack === null) {
    tell("stopping");
    await starting.then(
      (late) => late.stop(),
      () => {},
    );
    return;
  }
  const { environment, uiUrl, metricsUrl } = stack;
  try {
    writeDevState({
      pid: process.pid,
      environment,
      model: ref,
      dtype,
      settings,
      ...(uiUrl === undefined ? {} : { ui: uiUrl }),
    });
    for (const [name, value] of Object.entries(environment)) writeLine(`${name}=${value}`);
    if (uiUrl !== undefined) writeLine(`Temporal UI  ${uiUrl}`);
    writeLine(`metrics      ${metricsUrl}`);
    writeLine(`model        ${ref} digest ${await digestOf(ref, dtype)} dtype ${dtype}`);
    tell("ready; `blipfleet job submit FOLDER --watch` in another terminal, Ctrl-C here to stop");
    const problem = await Promise.race([interrupted, stack.broken]);
    if (problem !== null) {
      tell(`blipfleet dev: ${problem}`);
      process.exitCode = 1;
    }
  } finally {
    tell("stopping");
    removeDevState();
    await stack.stop();
    clearInterval(alive);
  }
}

/** What names the model's queues, for callers of the workflow `answer`. */
async function digestOf(ref: string, dtype: Dtype): Promise<string> {
  const { cacheFolder } = await import("../jobs/roots.ts");
  const { checkModel } = await import("../models/model-card.ts");
  const { openCheckpoint } = await import("../weights/checkpoint.ts");
  return (await checkModel(await openCheckpoint(ref), dtype, { cacheFolder: cacheFolder() })).card.digest;
}
