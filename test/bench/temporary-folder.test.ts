// What a bench wrote is gone when it ends, by itself or by a signal.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { inTemporaryFolder } from "../../bench/temporary-folder.ts";

test("the folder is there for the work, and gone after it, when the work fails too", async () => {
  const folders: string[] = [];
  const work = async (folder: string) => {
    writeFileSync(join(folder, "large"), "x");
    folders.push(folder);
    if (folders.length > 1) throw new Error("no room");
    return 5;
  };
  assert.equal(await inTemporaryFolder("blipfleet-test-", work), 5);
  await assert.rejects(inTemporaryFolder("blipfleet-test-", work), /no room/);
  assert.deepEqual(folders.map(existsSync), [false, false]);
});

test("a signal that ends the process removes it and says so", async () => {
  const script = `
    import { inTemporaryFolder } from ${JSON.stringify(new URL("../../bench/temporary-folder.js", import.meta.url).href)};
    await inTemporaryFolder("blipfleet-test-", async (folder) => {
      process.stdout.write(folder);
      await new Promise((resolve) => setTimeout(resolve, 60000));
    });`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", script], { stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    said += text;
  });
  const [folder] = await once(child.stdout.setEncoding("utf8"), "data");
  assert.ok(existsSync(folder), folder);
  child.kill("SIGTERM");
  const [status] = await once(child, "close");
  assert.equal(status, 143, said);
  assert.equal(said, `bench: ended by SIGTERM, removed ${folder}\n`);
  assert.ok(!existsSync(folder), folder);
});
