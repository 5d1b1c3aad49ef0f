// What doctor says about the servers that jobs need: one answers, one does not, and one cannot.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { startNats } from "../../src/workers/servers/nats.ts";
import { runCli } from "./run-cli.ts";

const folder = mkdtempSync(join(tmpdir(), "blipfleet-doctor-test-"));
after(() => rmSync(folder, { recursive: true, force: true }));

/** Port 9 is discard; nothing listens there. */
const nowhere = "127.0.0.1:9";

async function doctor(addresses: NodeJS.ProcessEnv) {
  const env = { ...process.env, BLIPFLEET_CACHE: folder, ...addresses };
  const { status, stdout, stderr } = await runCli(["doctor", "--format", "jsonl"], env);
  const findings: { check: string; ok: boolean; needed: boolean; detail: string }[] = stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  const about = (check: string) => {
    const finding = findings.find((each) => each.check === check);
    assert.ok(finding, `${check} in ${stdout}${stderr}`);
    return finding;
  };
  return { status, stdout, about };
}

test("a server that answers is told with its address; one that does not is no failure", async () => {
  const nats = await startNats({ storeDir: join(folder, "nats") });
  try {
    const { status, stdout, about } = await doctor({ TEMPORAL_ADDRESS: nowhere, NATS_URL: nats.url });
    const { ok, detail } = about("NATS");
    assert.equal(ok, true, detail);
    assert.equal(detail, `answers at ${nats.url.replace("nats://", "")}`);
    const temporal = about("Temporal");
    assert.deepEqual([temporal.ok, temporal.needed], [false, false]);
    assert.match(temporal.detail, /expected a server at 127\.0\.0\.1:9 .*only jobs need it/);
    assert.equal(status, 0, stdout);
  } finally {
    await nats.stop();
  }
});

test("an address that is none is a failure", async () => {
  const { status, about } = await doctor({ TEMPORAL_ADDRESS: nowhere, NATS_URL: "http://somewhere" });
  const { ok, needed, detail } = about("NATS");
  assert.deepEqual([ok, needed], [false, true]);
  assert.match(detail, /NATS_URL: expected nats:/);
  assert.equal(status, 1);
});
