// Where the binaries of nats-server and temporal are: named explicitly, found by the set-up, or on PATH.

import { accessSync, constants, readFileSync, statSync } from "node:fs";
import { delimiter, isAbsolute, join } from "node:path";
import { z } from "zod";
import { cacheFolder, type Environment } from "../../jobs/roots.ts";
import { ServerMissingError } from "./errors.ts";

export type ServerBinary = "nats-server" | "temporal";

const settings = {
  "nats-server": { variable: "BLIPFLEET_NATS_SERVER", field: "natsServer" },
  temporal: { variable: "BLIPFLEET_TEMPORAL", field: "temporal" },
} as const;

/** What the set-up leaves for later commands; it may hold more fields than these. */
const setupEnvironment = z.object({ natsServer: z.string().optional(), temporal: z.string().optional() });

/**
 * Absolute path of a server's binary: from BLIPFLEET_NATS_SERVER or BLIPFLEET_TEMPORAL, else from environment.json in
 * the cache folder, else from PATH.
 * @throws ServerMissingError naming every place that was looked at.
 */
export function findServer(binary: ServerBinary, environment: Environment = process.env): string {
  const { variable, field } = settings[binary];
  const named = environment[variable];
  if (named) {
    if (isExecutable(named)) return named;
    throw new ServerMissingError(`${variable}: expected an executable ${binary}, got ${named}; correct or unset it`);
  }
  const file = join(cacheFolder(environment), "environment.json");
  const recorded = readSetup(file)?.[field];
  if (recorded && isExecutable(recorded)) return recorded;
  const folders = (environment.PATH ?? "").split(delimiter).filter(isAbsolute);
  const onPath = folders.map((folder) => join(folder, binary)).find(isExecutable);
  if (onPath !== undefined) return onPath;
  throw new ServerMissingError(
    `${binary}: expected it in ${variable}, ${file} or PATH, got none of them; run "npm run setup"`,
  );
}

function readSetup(file: string): z.infer<typeof setupEnvironment> | undefined {
  try {
    const parsed = setupEnvironment.safeParse(JSON.parse(readFileSync(file, "utf8")));
    return parsed.success ? parsed.data : undefined;
  } catch {
    return undefined; // no set-up yet; PATH is next
  }
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}
