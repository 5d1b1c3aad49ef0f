// blipfleet worker: one process that serves one GPU to a fleet.

import type { Command } from "commander";
import type { Stage } from "../messages/job.ts";
import { workerDefaults } from "../workers/worker-defaults.ts";
import { UsageError } from "./errors.ts";
import { finiteNumber, wholeNumber } from "./generation-options.ts";
import {
  addSettingsOptions,
  chooseModel,
  type DtypeChoice,
  dtypeHelp,
  parseDtype,
  type SettingsFlags,
  settingsFrom,
} from "./model-options.ts";
import { fromHere, tell } from "./output.ts";
import { repeated } from "./repeated.ts";

interface Flags extends SettingsFlags {
  readonly model?: readonly string[];
  readonly dtype: DtypeChoice;
  readonly stages: readonly Stage[];
  readonly jobs: boolean;
  readonly metricsPort?: number;
  readonly batchSlots: number;
  readonly nowSlots: number;
  readonly graceSeconds: number;
}

const allStages: readonly Stage[] = ["encode", "query", "generate"];

export function addWorkerCommand(program: Command): void {
  const command = program
    .command("worker")
    .description("Take work of jobs and answers from Temporal, until SIGTERM or Ctrl-C; then drain and end.")
    .option("--model <ref>", "Hugging Face id or directory; may be repeated (default: the demo model)", repeated)
    .option("--dtype <type>", dtypeHelp, parseDtype, "auto");
  addSettingsOptions(command)
    .option(
      "--stages <list>",
      "which stages to serve: encode,query,generate; encode loads the Q-Former too, for fused jobs",
      parseStages,
      allStages,
    )
    .option("--no-jobs", "leave workflows and planning to other workers")
    .option(
      "--metrics-port <port>",
      `of /metrics, /healthz and /readyz; 0 for a free one (default: ${workerDefaults.metricsPort}, a free one where it is taken)`,
      wholeNumber("--metrics-port", 0, 65535),
    )
    .option(
      "--batch-slots <count>",
      "batch activities of one stage at a time",
      wholeNumber("--batch-slots", 1, 4),
      workerDefaults.batchSlots,
    )
    .option(
      "--now-slots <count>",
      "answers of one stage at a time",
      wholeNumber("--now-slots", 1, 64),
      workerDefaults.nowSlots,
    )
    .option(
      "--grace-seconds <seconds>",
      "time to end what is under way after a stop",
      finiteNumber("--grace-seconds", true),
      workerDefaults.graceSeconds,
    )
    .addHelpText(
      "after",
      `
Addresses come from the environment: TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TEMPORAL_API_KEY, TEMPORAL_TLS_*, NATS_URL,
NATS_CREDS. Jobs may read images below BLIPFLEET_ROOTS and keep their files in BLIPFLEET_JOBS, which all workers share.

Examples:
  blipfleet worker --model Salesforce/blip2-opt-2.7b --dtype f16
  blipfleet worker --model Salesforce/blip2-opt-2.7b --stages encode,query
  VK_DRIVER_FILES=... blipfleet worker --model ./model      one process per GPU
`,
    )
    .action(worker);
}

function parseStages(text: string): Stage[] {
  const names = text.split(",").map((name) => name.trim());
  const wrong = names.find((name) => !allStages.some((stage) => stage === name));
  if (wrong !== undefined) {
    throw new UsageError(`--stages: expected a list of ${allStages.join(", ")}, got ${JSON.stringify(wrong)}`);
  }
  return allStages.filter((stage) => names.includes(stage));
}

async function worker(flags: Flags): Promise<void> {
  const { useDevServers } = await import("./dev-state.ts");
  const { resolveDtype } = await import("./checkpoint-dtype.ts");
  const { purposesOf } = await import("../models/model-card.ts");
  const { runWorker } = await import("../workers/worker.ts");
  const { openCheckpoint } = await import("../weights/checkpoint.ts");
  const dev = useDevServers();
  if (dev !== null) tell(`joining the servers of \`blipfleet dev\` (pid ${dev.pid})`);
  const chosen = (flags.model ?? [undefined]).map((ref) => chooseModel(ref));
  const models = [];
  for (const { ref, notice } of chosen) {
    if (notice !== null) tell(notice);
    const dtype = await resolveDtype(ref, flags.dtype);
    // Before servers are waited for.
    const [purpose = "texts"] = await purposesOf(await openCheckpoint(ref));
    if (purpose !== "texts" && flags.stages.every((stage) => stage === "generate")) {
      throw new UsageError(
        `--stages generate: expected a model that writes texts, got ${fromHere(ref)}, which has encode and query only`,
      );
    }
    models.push({ ref, dtype, purpose, settings: settingsFrom(flags) });
  }
  const { stages, jobs, metricsPort, batchSlots, nowSlots, graceSeconds } = flags;
  await runWorker({
    models,
    stages,
    jobs,
    ...(metricsPort === undefined ? {} : { metricsPort }),
    batchSlots,
    nowSlots,
    graceSeconds,
  });
}
