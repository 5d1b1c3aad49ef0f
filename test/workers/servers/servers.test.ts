// The servers that we start ourselves: ready when they say so, one per folder, and never left behind.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { jetstreamManager } from "@nats-io/jetstream";
import { Connection } from "@temporalio/client";
import { connectNats } from "../../../src/messages/connect.ts";
import { NatsConfigError } from "../../../src/messages/errors.ts";
import { findServer } from "../../../src/workers/servers/binaries.ts";
import { startChild } from "../../../src/workers/servers/child.ts";
import { ServerError, ServerMissingError } from "../../../src/workers/servers/errors.ts";
import { startNats } from "../../../src/workers/servers/nats.ts";
import { searchAttributes, startTemporal } from "../../../src/workers/servers/temporal.ts";
import { temporaryFolder } from "../../jobs/temporary-folder.ts";

const root = temporaryFolder();

/** True while a process runs; a zombie that nobody has waited for does not. */
function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch {
    return false;
  }
  const status = `/proc/${pid}/stat`;
  if (!existsSync(status)) return true;
  return !/^\d+ \(.*\) [ZX]/s.test(readFileSync(status, "utf8"));
}

async function expectGone(pid: number): Promise<void> {
  for (let i = 0; i < 150 && isRunning(pid); i += 1) await delay(100);
  assert.equal(isRunning(pid), false, `expected process ${pid} to end, it still runs`);
}

/** An executable script in the place of a server. */
function fakeServer(name: string, script: string): string {
  const path = join(root, name);
  writeFileSync(path, `#!/bin/sh\n${script}\n`);
  chmodSync(path, 0o755);
  return path;
}

describe("finding binaries", () => {
  const cache = join(root, "cache");
  const bin = join(root, "bin");
  mkdirSync(cache);
  mkdirSync(bin);
  const named = fakeServer("named", "exit 0");
  const recorded = fakeServer("recorded", "exit 0");
  const onPath = fakeServer("bin/nats-server", "exit 0");
  writeFileSync(join(cache, "environment.json"), JSON.stringify({ natsServer: recorded, adapter: { any: 1 } }));

  test("a named one goes before the set-up's, and that before PATH", () => {
    const environment = { BLIPFLEET_NATS_SERVER: named, BLIPFLEET_CACHE: cache, PATH: `/nowhere:${bin}` };
    assert.equal(findServer("nats-server", environment), named);
    assert.equal(findServer("nats-server", { ...environment, BLIPFLEET_NATS_SERVER: undefined }), recorded);
    assert.equal(
      findServer("nats-server", { BLIPFLEET_CACHE: join(root, "no-cache"), PATH: environment.PATH }),
      onPath,
    );
  });

  test("a recorded one that is gone is passed over", () => {
    const other = join(root, "other-cache");
    mkdirSync(other);
    writeFileSync(join(other, "environment.json"), '{"natsServer": "/gone/nats-server"}');
    assert.equal(findServer("nats-server", { BLIPFLEET_CACHE: other, PATH: bin }), onPath);
    writeFileSync(join(other, "environment.json"), "{half");
    assert.equal(findServer("nats-server", { BLIPFLEET_CACHE: other, PATH: bin }), onPath);
  });

  test("a named one that is not there is an error, not a fallback", () => {
    assert.throws(
      () => findServer("nats-server", { BLIPFLEET_NATS_SERVER: "/gone", PATH: bin }),
      (error: Error) => {
        assert.ok(error instanceof ServerMissingError);
        assert.match(error.message, /BLIPFLEET_NATS_SERVER: expected an executable nats-server, got \/gone/);
        return true;
      },
    );
  });

  test("none at all names the places and the set-up", () => {
    assert.throws(
      () => findServer("temporal", { BLIPFLEET_CACHE: cache, PATH: bin }),
      (error: Error) => {
        assert.ok(error instanceof ServerMissingError);
        assert.match(error.message, /BLIPFLEET_TEMPORAL, .*environment\.json or PATH.*npm run setup/);
        return true;
      },
    );
  });
});

describe("nats-server", () => {
  test("is ready when start returns, with the payload limit asked for, and gone when stop returns", async () => {
    const server = await startNats({ storeDir: join(root, "nats-1") });
    const connection = await connectNats({ NATS_URL: server.url });
    assert.equal(connection.info?.max_payload, 8 * 1024 * 1024);
    await (await jetstreamManager(connection)).streams.add({ name: "KEPT", subjects: ["kept"] });
    await connection.close();
    const pid = server.pid();
    await server.stop();
    assert.equal(isRunning(pid), false);
    await server.stop();
  });

  test("restarts on the same port with its streams, or empty", async () => {
    const server = await startNats({ storeDir: join(root, "nats-1"), maxPayload: "64KB" });
    const streams = async () => {
      const connection = await connectNats({ NATS_URL: server.url });
      const names: string[] = [];
      for await (const name of (await jetstreamManager(connection)).streams.names()) names.push(name);
      assert.equal(connection.info?.max_payload, 64 * 1024);
      await connection.close();
      return names;
    };
    try {
      assert.deepEqual(await streams(), ["KEPT"]);
      await server.restart();
      assert.deepEqual(await streams(), ["KEPT"]);
      await server.restart({ empty: true });
      assert.deepEqual(await streams(), []);
    } finally {
      await server.stop();
    }
  });

  test("with authorization, a client without credentials is told which settings to use", async () => {
    const server = await startNats({
      storeDir: join(root, "nats-auth"),
      configLines: ['authorization { user: "fleet", password: "s3cret" }'],
      credentials: { NATS_USER: "fleet", NATS_PASSWORD: "s3cret" },
    });
    try {
      await assert.rejects(connectNats({ NATS_URL: server.url }), (error: Error) => {
        assert.ok(error instanceof NatsConfigError, `expected NatsConfigError, got ${error}`);
        assert.match(error.message, /Authorization Violation|authorization violation/i);
        assert.match(error.message, /NATS_CREDS, NATS_NKEY, NATS_USER/);
        assert.ok(!error.message.includes("s3cret"));
        return true;
      });
      const inUrl = await connectNats({ NATS_URL: server.url.replace("//", "//fleet:s3cret@") });
      await inUrl.close();
    } finally {
      await server.stop();
    }
  });

  test("a second server on the same folder is refused, with the owner's process", async () => {
    const storeDir = join(root, "nats-shared");
    const server = await startNats({ storeDir });
    try {
      await assert.rejects(startNats({ storeDir }), (error: Error) => {
        assert.ok(error instanceof ServerError);
        assert.match(error.message, new RegExp(`in use by process ${process.pid}`));
        return true;
      });
    } finally {
      await server.stop();
    }
    const next = await startNats({ storeDir });
    await next.stop();
  });

  test("one that dies at once is an error with its last words, prefixed", async () => {
    await assert.rejects(
      startNats({ storeDir: join(root, "nats-bad"), configLines: ["no_such_setting: 1"] }),
      (error: Error) => {
        assert.ok(error instanceof ServerError);
        assert.match(error.message, /expected a running server, got: nats-server \(pid \d+\) ended with status 1/);
        assert.match(error.message, /^\[nats-server\] .*no_such_setting/m);
        return true;
      },
    );
  });

  test("a crash is told through ended()", async () => {
    const server = await startNats({ storeDir: join(root, "nats-crash") });
    const ended = server.ended();
    await server.kill();
    assert.match(await ended, /^nats-server \(pid \d+\) ended with signal SIGKILL$/);
    await server.stop();
  });

  test("one that ignores SIGTERM is ended with SIGKILL", { timeout: 30_000 }, async () => {
    const stubborn = fakeServer("stubborn", 'trap "" TERM; echo up; while :; do sleep 0.1; done');
    const child = await startChild({
      name: "stubborn",
      command: stubborn,
      args: [],
      logFile: join(root, "stubborn.log"),
      graceMs: 400,
    });
    while (!existsSync(child.logFile) || readFileSync(child.logFile, "utf8") === "") await delay(20);
    await child.stop();
    assert.equal(child.running(), false, "stop() returns when the process is gone");
    assert.match(await child.ended, /signal SIGKILL/);
  });
});

describe("temporal", () => {
  test("is ready with its search attributes and matching settings, keeps its database over a restart", async () => {
    const server = await startTemporal({
      folder: join(root, "temporal"),
      dbFile: join(root, "temporal", "t.db"),
      namespace: "captions",
    });
    try {
      assert.equal(server.uiUrl, undefined);
      const connection = await Connection.connect({ address: server.address });
      const { customAttributes } = await connection.operatorService.listSearchAttributes({ namespace: "captions" });
      for (const name of Object.keys(searchAttributes)) assert.ok(name in (customAttributes ?? {}), name);
      const start = {
        namespace: "captions",
        workflowId: "w-1",
        workflowType: { name: "none" },
        taskQueue: { name: "nobody" },
        requestId: "r-1",
      };
      const { runId } = await connection.workflowService.startWorkflowExecution(start);
      await connection.close();
      await server.restart();
      const again = await Connection.connect({ address: server.address });
      const described = await again.workflowService.describeWorkflowExecution({
        namespace: "captions",
        execution: { workflowId: "w-1" },
      });
      assert.equal(described.workflowExecutionInfo?.execution?.runId, runId);
      await again.close();
      const command = readFileSync(`/proc/${server.pid()}/cmdline`, "utf8").split("\0").join(" ");
      assert.match(
        command,
        /--dynamic-config-value matching\.useNewMatcher=true --dynamic-config-value matching\.enableFairness=true/,
      );
    } finally {
      const pid = server.pid();
      await server.stop();
      assert.equal(isRunning(pid), false);
    }
  });
});

describe("a parent that is killed", () => {
  test("leaves no server behind", { timeout: 60_000 }, async () => {
    const script = `
      import { startNats } from ${JSON.stringify(new URL("../../../src/workers/servers/nats.js", import.meta.url).href)};
      import { startTemporal } from ${JSON.stringify(new URL("../../../src/workers/servers/temporal.js", import.meta.url).href)};
      const nats = await startNats({ storeDir: ${JSON.stringify(join(root, "orphan-nats"))} });
      const temporal = await startTemporal({ folder: ${JSON.stringify(join(root, "orphan-temporal"))} });
      process.stdout.write(nats.pid() + " " + temporal.pid() + "\\n");
      setInterval(() => undefined, 1000);
    `;
    const parent = spawn(process.execPath, ["--input-type=module", "-e", script], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const [line] = await once(createInterface({ input: parent.stdout }), "line");
    const pids = String(line).split(" ").map(Number);
    assert.ok(
      pids.every((pid) => pid > 0 && isRunning(pid)),
      `expected two running servers, got ${line}`,
    );
    parent.kill("SIGKILL");
    await once(parent, "exit");
    for (const pid of pids) await expectGone(pid);
    // The folder's owner is dead, so it can be taken again.
    const next = await startNats({ storeDir: join(root, "orphan-nats") });
    await next.stop();
  });
});
