// Where set-up keeps what it fetched, and which Vulkan driver and servers it found. Read by the launcher, by the
// scripts and (as the variables below) by everything that the launcher starts. No dependencies.

import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";

/** The one folder for downloads, built programs and what set-up found. */
export function cacheFolder() {
  if (process.env.BLIPFLEET_CACHE) return process.env.BLIPFLEET_CACHE;
  return join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "blipfleet");
}

/** Raised when the shape of environment.json changes; an older file is then as good as none. */
export const environmentFormat = 1;

/**
 * @typedef {"gpu" | "lavapipe" | "swiftshader"} DriverKind
 * @typedef {{ env: Record<string, string>, description: string }} Driver
 * `natsServer` and `temporal` are paths of programs.
 * @typedef {{
 *   format: number,
 *   adapter: DriverKind | null,
 *   secondAdapter: DriverKind | null,
 *   adapters: Partial<Record<DriverKind, Driver>>,
 *   natsServer?: string,
 *   temporal?: string,
 *   versions: { natsServer?: string, temporal?: string },
 *   checked: { drivers: string, node: string, webgpu: string },
 * }} Environment
 */

/** @returns {Environment | null} what set-up recorded, or null when it has not run (or an older version of it has). */
export function readEnvironment() {
  try {
    const environment = JSON.parse(readFileSync(join(cacheFolder(), "environment.json"), "utf8"));
    return environment.format === environmentFormat ? environment : null;
  } catch {
    return null;
  }
}

/** Values of BLIPFLEET_DRIVER. */
export const driverChoices = ["auto", "gpu", "lavapipe", "swiftshader"];

/**
 * Variables for a process that uses the GPU, the NATS server or Temporal. What the user has set himself stays.
 * @param {Environment | null} environment
 * @param {NodeJS.ProcessEnv} own the variables of this process
 * @returns {{ variables: Record<string, string>, problem: string | null }}
 */
export function variablesFor(environment, own = process.env) {
  const variables = {};
  const choice = own.BLIPFLEET_DRIVER || "auto";
  let problem = null;
  if (!driverChoices.includes(choice)) {
    problem = `BLIPFLEET_DRIVER: expected one of ${driverChoices.join(", ")}, got ${choice}`;
  } else if (environment) {
    const ownDriver = choice === "auto" && (own.VK_DRIVER_FILES || own.VK_ICD_FILENAMES);
    const kind = choice === "auto" ? environment.adapter : choice;
    const driver = kind ? environment.adapters[kind] : undefined;
    if (driver && !ownDriver) Object.assign(variables, driver.env);
    if (!driver && choice !== "auto") {
      const found = Object.keys(environment.adapters).join(", ") || "none";
      problem = `BLIPFLEET_DRIVER=${choice}: expected a driver that set-up found (${found}); run \`npm run setup -- --tests\` to fetch SwiftShader`;
    }
  }
  if (environment?.natsServer) variables.BLIPFLEET_NATS_SERVER = environment.natsServer;
  if (environment?.temporal) variables.BLIPFLEET_TEMPORAL = environment.temporal;
  // in front of the user's own folders, and once only: the launcher starts itself again until this one is there
  const loader = variables.LD_LIBRARY_PATH;
  const folders = (own.LD_LIBRARY_PATH ?? "").split(":").filter((folder) => folder !== "" && folder !== loader);
  if (loader) variables.LD_LIBRARY_PATH = [loader, ...folders].join(":");
  for (const name of ["XDG_RUNTIME_DIR", "BLIPFLEET_NATS_SERVER", "BLIPFLEET_TEMPORAL"]) {
    if (own[name]) delete variables[name];
  }
  return { variables, problem };
}
