// blipfleet dev: the servers and one worker on this machine, until Ctrl-C.

import type { Command } from "commander";
import type { Purpose } from "../models/families.ts";
import type { Dtype } from "../stages.ts";
import { UsageError } from "./errors.ts";
import {
  addSettingsOptions,
  chooseModel,
  type DtypeChoice,
  dtypeHelp,
  parseDtype,
  type SettingsFlags,
  settingsFrom,
} from "./model-options.ts";
import { fromHere, tell, writeLine } from "./output.ts";
import { repeated } from "./repeated.ts";

interface Flags extends SettingsFlags {
  readonly data: string;
  readonly root?: readonly string[];
  readonly model?: readonly string[];
  readonly dtype: DtypeChoice;
}

export function addDevCommand(program: Command): void {
  const command = program
    .command("dev")
    .description("Start Temporal, NATS and one worker here; `job` commands in other terminals find them.")
    .option("--data <folder>", "databases, logs and jobs; kept, so that jobs go on after a restart", "blipfleet-data")
    .option("--root <folder>", "jobs may read images below it; may be repeated (default: this folder)", repeated)
    .option(
      "--model <ref>",
      "Hugging Face id, or a directory in Hugging Face layout; may be repeated (default: the demo models)",
      repeated,
    )
    .option("--dtype <type>", dtypeHelp, parseDtype, "auto");
  addSettingsOptions(command)
    .addHelpText(
      "after",
      `
Examples:
  blipfleet dev
  blipfleet dev --model Salesforce/blip2-opt-2.7b --model Salesforce/blip2-itm-vit-g --root ~/photos
`,
    )
    .action(dev);
}

async function dev(flags: Flags): Promise<void> {
  const { startDevStack } = await import("./dev-stack.ts");
  const { devOn, removeDevState, writeDevState } = await import("./dev-state.ts");
  const other = devOn(flags.data);
  if (other !== null) {
    throw new UsageError(
      `dev: expected ${fromHere(flags.data)} to be free, got one that \`blipfleet dev\` (pid ${other.pid}) already runs on; ` +
        "use that one, stop it first, or start a second with --data FOLDER",
    );
  }
  const models = await chosenModels(flags);
  const settings = settingsFrom(flags);
  const alive = setInterval(() => {}, 60_000); // the children alone do not keep this process
  const interrupted = new Promise<null>((resolve) => {
    for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => resolve(null));
  });
  const starting = startDevStack({
    folder: flags.data,
    models: models.map(({ ref }) => ref),
    dtype: flags.dtype,
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
    const served = models.map(({ ref, dtype, purposes }) => ({ ref, dtype, purposes: [...purposes] }));
    const state = { pid: process.pid, environment, models: served, settings };
    writeDevState({ ...state, ...(uiUrl === undefined ? {} : { ui: uiUrl }) });
    for (const [name, value] of Object.entries(environment)) writeLine(`${name}=${value}`);
    if (uiUrl !== undefined) writeLine(`Temporal UI  ${uiUrl}`);
    writeLine(`metrics      ${metricsUrl}`);
    for (const model of models) {
      const own = Object.keys(settings).length > 0 ? ` settings ${JSON.stringify(settings)}` : "";
      writeLine(`model        ${model.ref} digest ${await digestOf(model)} dtype ${model.dtype}${own}`);
    }
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

interface Served {
  readonly ref: string;
  readonly dtype: Dtype;
  /** What it can be used for, its main purpose first. */
  readonly purposes: readonly Purpose[];
}

/** --model, or a demo model that writes texts and one that compares. @throws UsageError, and what opening one throws */
async function chosenModels({ model, dtype }: Flags): Promise<Served[]> {
  const { resolveDtype } = await import("./checkpoint-dtype.ts");
  const { purposesOf } = await import("../models/model-card.ts");
  const { openCheckpoint } = await import("../weights/checkpoint.ts");
  const refs =
    model?.map((ref) => chooseModel(ref).ref) ??
    [chooseModel(undefined), chooseModel(undefined, "matches")].map(({ ref }) => ref);
  if (model === undefined)
    tell(`using the demo models ${refs.map(fromHere).join(" and ")}; choose others with --model`);
  return Promise.all(
    refs.map(async (ref) => ({
      ref,
      dtype: await resolveDtype(ref, dtype),
      purposes: await purposesOf(await openCheckpoint(ref)),
    })),
  );
}

/** What names the model's queues, for callers of the workflow `answer`. */
async function digestOf({ ref, dtype, purposes: [purpose = "texts"] }: Served): Promise<string> {
  const { cacheFolder } = await import("../jobs/roots.ts");
  const { checkModel } = await import("../models/model-card.ts");
  const { openCheckpoint } = await import("../weights/checkpoint.ts");
  return (await checkModel(await openCheckpoint(ref), dtype, { cacheFolder: cacheFolder(), purpose })).card.digest;
}
