// What set-up recorded becomes the variables of a command: the user's own always win.

import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { pathToFileURL } from "node:url";
import { packageRoot } from "../../src/gpu/package-root.ts";

const folder = mkdtempSync(join(tmpdir(), "blipfleet-environment-"));
after(() => rmSync(folder, { recursive: true, force: true }));

const modulePath = pathToFileURL(join(packageRoot, "bin", "environment.mjs")).href;
const { variablesFor, readEnvironment, environmentFormat } = await import(modulePath);

const environment = {
  format: environmentFormat,
  adapter: "lavapipe",
  secondAdapter: "swiftshader",
  adapters: {
    lavapipe: { env: { VK_DRIVER_FILES: "/lvp.json", XDG_RUNTIME_DIR: "/cache/runtime" }, description: "lavapipe" },
    swiftshader: {
      env: { VK_DRIVER_FILES: "/swiftshader.json", LD_LIBRARY_PATH: "/cache/swiftshader" },
      description: "s",
    },
  },
  natsServer: "/cache/bin/nats-server",
  temporal: "/cache/bin/temporal",
  versions: {},
  checked: {},
};
const servers = { BLIPFLEET_NATS_SERVER: "/cache/bin/nats-server", BLIPFLEET_TEMPORAL: "/cache/bin/temporal" };

test("the adapter that set-up chose is used by default", () => {
  assert.deepEqual(variablesFor(environment, {}), {
    variables: { VK_DRIVER_FILES: "/lvp.json", XDG_RUNTIME_DIR: "/cache/runtime", ...servers },
    problem: null,
  });
});

test("BLIPFLEET_DRIVER chooses another", () => {
  assert.deepEqual(variablesFor(environment, { BLIPFLEET_DRIVER: "swiftshader" }).variables, {
    VK_DRIVER_FILES: "/swiftshader.json",
    LD_LIBRARY_PATH: "/cache/swiftshader",
    ...servers,
  });
  assert.match(
    variablesFor(environment, { BLIPFLEET_DRIVER: "gpu" }).problem,
    /expected a driver that set-up found \(lavapipe, swiftshader\)/,
  );
  assert.match(
    variablesFor(environment, { BLIPFLEET_DRIVER: "cuda" }).problem,
    /expected one of auto, gpu, lavapipe, swiftshader, got cuda/,
  );
});

test("a driver, a server or a folder that the user named stays", () => {
  for (const name of ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"]) {
    assert.deepEqual(variablesFor(environment, { [name]: "/mine.json" }).variables, servers);
  }
  const own = {
    XDG_RUNTIME_DIR: "/run/me",
    BLIPFLEET_NATS_SERVER: "/my/nats-server",
    BLIPFLEET_TEMPORAL: "/my/temporal",
  };
  assert.deepEqual(variablesFor(environment, own).variables, { VK_DRIVER_FILES: "/lvp.json" });
});

test("a loader's folder goes before the user's own, once", () => {
  const own = { BLIPFLEET_DRIVER: "swiftshader", LD_LIBRARY_PATH: "/mine:/cache/swiftshader" };
  const { LD_LIBRARY_PATH } = variablesFor(environment, own).variables;
  assert.equal(LD_LIBRARY_PATH, "/cache/swiftshader:/mine");
  assert.equal(variablesFor(environment, { ...own, LD_LIBRARY_PATH }).variables.LD_LIBRARY_PATH, LD_LIBRARY_PATH);
});

test("without set-up nothing is set, and a file of another format is none", () => {
  assert.deepEqual(variablesFor(null, {}), { variables: {}, problem: null });
  const before = process.env.BLIPFLEET_CACHE;
  process.env.BLIPFLEET_CACHE = folder;
  try {
    assert.equal(readEnvironment(), null);
    writeFileSync(join(folder, "environment.json"), JSON.stringify({ ...environment, format: environmentFormat + 1 }));
    assert.equal(readEnvironment(), null);
    writeFileSync(join(folder, "environment.json"), JSON.stringify(environment));
    assert.deepEqual(readEnvironment(), environment);
  } finally {
    if (before === undefined) delete process.env.BLIPFLEET_CACHE;
    else process.env.BLIPFLEET_CACHE = before;
  }
});

test("two set-ups at once: the second waits for the first, and a dead one is passed over", () => {
  const steps = pathToFileURL(join(packageRoot, "scripts", "setup", "steps.mjs")).href;
  const lock = join(folder, "setup.lock");
  const log = join(folder, "log.txt");
  writeFileSync(log, "");
  const script = `
    import { appendFileSync } from "node:fs";
    import { withLock } from ${JSON.stringify(steps)};
    await withLock(${JSON.stringify(lock)}, "set-up", async () => {
      appendFileSync(${JSON.stringify(log)}, "in ");
      await new Promise((resolve) => setTimeout(resolve, 100));
      appendFileSync(${JSON.stringify(log)}, "out ");
    });`;
  const file = join(folder, "locked.mjs");
  writeFileSync(file, script);
  // three at once, over a lock whose holder is long gone
  const { pid } = spawnSync(process.execPath, ["-e", ""]);
  writeFileSync(lock, `${hostname()} ${pid}`);
  const shell = [1, 2, 3].map(() => `"${process.execPath}" "${file}" &`).join(" ");
  spawnSync("/bin/sh", ["-c", `${shell} wait`], { stdio: "ignore" });
  assert.equal(readFileSync(log, "utf8"), "in out in out in out ");
});

/** A worker without Temporal and NATS: it waits for them until it is told to stop. */
function waitingWorker(launcher: string, env: NodeJS.ProcessEnv) {
  const nowhere = { TEMPORAL_ADDRESS: "127.0.0.1:1", NATS_URL: "nats://127.0.0.1:1", BLIPFLEET_ROOTS: folder };
  const child = spawn(process.execPath, [launcher, "worker", "--metrics-port", "0"], {
    env: { ...env, ...nowhere },
    stdio: ["ignore", "ignore", "pipe"],
  });
  let log = "";
  const waits = new Promise<void>((resolve) => {
    child.stderr.on("data", (data: Buffer) => {
      log += data.toString("utf8");
      if (/waiting for NATS/.test(log)) resolve();
    });
  });
  return { child, exit: once(child, "exit"), closed: once(child.stderr, "close"), waits, log: () => log };
}

test("where a Vulkan loader must be brought along, the command runs in a child that gets the signals and ends with it", async () => {
  const cache = join(folder, "with-loader");
  mkdirSync(cache);
  const loader = { env: { LD_LIBRARY_PATH: join(folder, "loader") }, description: "s" };
  const recorded = { ...environment, adapter: "swiftshader", adapters: { swiftshader: loader } };
  writeFileSync(join(cache, "environment.json"), JSON.stringify(recorded));
  const launcher = join(packageRoot, "bin", "blipfleet.mjs");
  const env = { ...process.env, BLIPFLEET_CACHE: cache, LD_LIBRARY_PATH: "/mine", VK_DRIVER_FILES: undefined };
  const doctor = spawnSync(process.execPath, [launcher, "doctor"], { env, encoding: "utf8" });
  assert.match(doctor.stdout, new RegExp(`LD_LIBRARY_PATH ${join(folder, "loader")}:/mine`), doctor.stderr);
  assert.equal(spawnSync(process.execPath, [launcher, "caption"], { env }).status, 2);

  for (const signal of ["SIGTERM", "SIGKILL"] as const) {
    const { child, exit, closed, waits, log } = waitingWorker(launcher, env);
    await Promise.race([waits, exit]);
    child.kill(signal);
    const [status] = await exit;
    assert.equal(status, signal === "SIGTERM" ? 0 : null, log());
    // the worker itself has it open until it ends
    await closed;
    assert.match(log(), /waiting for NATS/);
  }
});
