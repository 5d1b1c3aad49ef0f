// Ports that a `dev` on this machine is about to take, so that two that start at the same moment do not choose the same.

import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/**
 * Claim a port for this process, until the returned function is called or the process is gone.
 * @param folder that all processes of this machine share
 * @returns null when another process has it, or claims cannot be made
 */
export function claimPort(port: number, folder: string = tmpdir()): (() => void) | null {
  const file = join(folder, `blipfleet-port-${port}.pid`);
  for (const isLastTry of [false, true]) {
    try {
      writeFileSync(file, String(process.pid), { flag: "wx" });
      return () => rmSync(file, { force: true });
    } catch {
      if (isLastTry || isHeld(file)) return null;
    }
    try {
      rmSync(file, { force: true });
    } catch {
      return null; // another user's
    }
  }
  return null;
}

/** By a process that lives. A claim that is being written is empty, which is 0: held by this process's group. */
function isHeld(file: string): boolean {
  try {
    return process.kill(Number(readFileSync(file, "utf8")), 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}
