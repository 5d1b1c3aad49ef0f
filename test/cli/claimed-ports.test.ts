// Two processes that want one port: the first has it until it lets go of it or is gone.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { claimPort } from "../../src/cli/claimed-ports.ts";
import { temporaryFolder } from "../jobs/temporary-folder.ts";

const folder = temporaryFolder();
const file = (port: number) => join(folder, `blipfleet-port-${port}.pid`);

test("a claimed port is refused until it is let go; other ports are free", () => {
  const release = claimPort(1, folder);
  assert.ok(release);
  assert.equal(claimPort(1, folder), null);
  const other = claimPort(2, folder);
  assert.ok(other);
  release();
  assert.equal(existsSync(file(1)), false);
  const again = claimPort(1, folder);
  assert.ok(again);
  again();
  other();
});

test("a claim holds while its process lives, and not longer", async () => {
  const child = spawn(process.execPath, ["-e", "setInterval(() => {}, 1000)"], { stdio: "ignore" });
  await once(child, "spawn");
  writeFileSync(file(3), String(child.pid));
  assert.equal(claimPort(3, folder), null);
  child.kill("SIGKILL");
  await once(child, "exit");
  const release = claimPort(3, folder);
  assert.ok(release);
  release();
});

test("a claim that is being written is held", () => {
  writeFileSync(file(4), "");
  assert.equal(claimPort(4, folder), null);
});
