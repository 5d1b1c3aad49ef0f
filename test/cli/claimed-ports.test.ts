// Two processes that want one port: the first has it until it lets go of it or is gone.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { claimPort, clearClaim } from "../../src/cli/claimed-ports.ts";
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

test("who saw a claim of a process that is gone leaves the one that has followed it, and one who clears it already", () => {
  writeFileSync(file(5), "77");
  assert.equal(clearClaim(file(5), "2147483646"), false);
  assert.equal(readFileSync(file(5), "utf8"), "77");
  writeFileSync(file(6), "2147483646");
  writeFileSync(`${file(6)}.2147483646`, "");
  assert.equal(clearClaim(file(6), "2147483646"), false, "another is about to");
  assert.equal(existsSync(file(6)), true);
});

test("of many that take a claim over at once, one has it", async () => {
  const module = new URL("../../src/cli/claimed-ports.js", import.meta.url).href;
  const port = 7;
  writeFileSync(file(port), "2147483646");
  const start = Date.now() + 700;
  const script = `
    const { claimPort } = await import(${JSON.stringify(module)});
    while (Date.now() < ${start});
    process.stdout.write(claimPort(${port}, ${JSON.stringify(folder)}) === null ? "0" : "1");
    process.stdin.resume().on("end", () => process.exit());`;
  const children = Array.from({ length: 5 }, () =>
    spawn(process.execPath, ["--input-type=module", "-e", script], { stdio: ["pipe", "pipe", "inherit"] }),
  );
  const got = await Promise.all(children.map(async ({ stdout }) => String(await once(stdout, "data"))));
  for (const { stdin } of children) stdin.end();
  assert.ok(got.filter((each) => each === "1").length <= 1, got.join(" "));
  assert.deepEqual(
    readdirSync(folder).filter((name) => name.startsWith(`blipfleet-port-${port}.pid.`)),
    [],
  );
});
