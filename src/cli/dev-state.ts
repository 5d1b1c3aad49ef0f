// A small file by which commands in another terminal find the servers that `blipfleet dev` started.

import { existsSync, readFileSync, realpathSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { z } from "zod";
import { cacheFolder } from "../jobs/roots.ts";
import { dtypes } from "../stages.ts";

const devState = z.object({
  /** Process of `blipfleet dev`; the file counts only while it lives. */
  pid: z.number().int().positive(),
  /** TEMPORAL_ADDRESS, NATS_URL and the like, as a command would be given them. */
  environment: z.record(z.string(), z.string()),
  /** What the worker serves: the models of jobs that name none, each with what it can be used for. */
  models: z.array(z.object({ ref: z.string(), dtype: z.enum(dtypes), purposes: z.array(z.string()) })),
  /** How it runs them. */
  settings: z
    .object({ imageSize: z.number().optional(), behaviour: z.enum(["huggingface", "lavis"]).optional() })
    .optional(),
  ui: z.string().optional(),
});

export type DevState = z.infer<typeof devState>;

const statePath = () => join(cacheFolder(), "dev.json");

/** Tell other terminals. */
export function writeDevState(state: DevState): void {
  const draft = `${statePath()}.${process.pid}`;
  writeFileSync(draft, `${JSON.stringify(state, null, 2)}\n`);
  renameSync(draft, statePath());
}

/** Take the file away, unless another `blipfleet dev` has written it since. */
export function removeDevState(): void {
  if (readDevState()?.pid === process.pid) rmSync(statePath(), { force: true });
}

/** The running `blipfleet dev`, or null. */
export function readDevState(): DevState | null {
  try {
    const state = devState.parse(JSON.parse(readFileSync(statePath(), "utf8")));
    process.kill(state.pid, 0);
    return state;
  } catch {
    return null; // none was started, it is from another version, or its process is gone
  }
}

/** The running `blipfleet dev` that keeps its data in this folder, or null. */
export function devOn(folder: string): DevState | null {
  const state = readDevState();
  const jobs = state?.environment.BLIPFLEET_JOBS;
  if (state === null || jobs === undefined || state.pid === process.pid || !existsSync(folder)) return null;
  return dirname(jobs) === realpathSync(folder) ? state : null;
}

/**
 * Let the running `blipfleet dev` stand in for addresses that the user has not set. When the user has set Temporal's, another
 * fleet is meant, and nothing of the dev servers is mixed into it.
 */
export function useDevServers(environment: NodeJS.ProcessEnv = process.env): DevState | null {
  if (environment.TEMPORAL_ADDRESS) return null;
  const state = readDevState();
  if (state === null) return null;
  for (const [name, value] of Object.entries(state.environment)) environment[name] ??= value;
  return state;
}
