// One server per data folder: a pid file that the first takes and later ones respect while its process lives.

import { linkSync, mkdirSync, readFileSync, unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ServerError } from "./errors.ts";

/**
 * Take a folder for a server run by this process. Returns what gives it back.
 * @throws ServerError naming the process that has it.
 */
export function lockFolder(folder: string, name: string): () => void {
  mkdirSync(folder, { recursive: true });
  const file = join(folder, `${name}.owner`);
  const mine = join(folder, `${name}.owner.${process.pid}`);
  writeFileSync(mine, `${process.pid}\n`);
  try {
    for (let attempt = 0; attempt < 3; attempt += 1) {
      try {
        linkSync(mine, file);
        return () => unlinkQuietly(file);
      } catch (error) {
        if (!isExists(error)) throw error;
        const owner = readOwner(file);
        if (owner !== undefined && isAlive(owner)) {
          throw new ServerError(
            `${name}: expected folder ${folder} to be free, got one in use by process ${owner}; stop that one or use another folder`,
          );
        }
        unlinkQuietly(file); // its owner is gone
      }
    }
    throw new ServerError(`${name}: expected to lock folder ${folder}, got a lock that others keep taking; try again`);
  } finally {
    unlinkQuietly(mine);
  }
}

function readOwner(file: string): number | undefined {
  try {
    const pid = Number(readFileSync(file, "utf8"));
    return Number.isSafeInteger(pid) && pid > 0 ? pid : undefined;
  } catch {
    return undefined;
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "EPERM";
  }
}

function isExists(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "EEXIST";
}

function unlinkQuietly(file: string): void {
  try {
    unlinkSync(file);
  } catch {
    // already gone
  }
}
