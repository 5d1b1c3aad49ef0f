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
  const own = String(process.pid);
  if (!createOnly(file, own)) {
    const holder = contentOf(file);
    if (holder === null || isAlive(holder) || !clearClaim(file, holder) || !createOnly(file, own)) return null;
  }
  return () => {
    if (contentOf(file) === own) rmSync(file, { force: true });
  };
}

/**
 * Remove the claim of a process that is gone. Of several that want to, one does at a time, and only while the claim is still that
 * one: whoever comes later finds another's and leaves it.
 */
export function clearClaim(file: string, holder: string): boolean {
  const clearing = `${file}.${holder}`;
  if (!createOnly(clearing, "")) return false;
  try {
    if (contentOf(file) !== holder) return false;
    rmSync(file);
    return true;
  } catch {
    return false; // another user's
  } finally {
    rmSync(clearing, { force: true });
  }
}

/** @returns false where there is one, or none can be made */
function createOnly(file: string, content: string): boolean {
  try {
    writeFileSync(file, content, { flag: "wx" });
    return true;
  } catch {
    return false;
  }
}

function contentOf(file: string): string | null {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return null;
  }
}

/** A claim that is being written is empty, which is 0: this process's group, which lives. */
function isAlive(holder: string): boolean {
  try {
    return process.kill(Number(holder), 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}
