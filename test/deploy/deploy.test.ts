// Every file of deploy/ against its own tool where this machine has it, and always against what the code expects of it.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { Command } from "commander";
import { parse } from "yaml";
import { z } from "zod";
import { addWorkerCommand } from "../../src/cli/worker.ts";
import { connectNats } from "../../src/messages/connect.ts";
import { openJetStreamPromptStore } from "../../src/messages/jetstream-prompt-store.ts";
import { findServer } from "../../src/workers/servers/binaries.ts";
import { startNats } from "../../src/workers/servers/nats.ts";
import { matchingSettings, searchAttributes } from "../../src/workers/servers/temporal.ts";
import { temporaryFolder } from "../jobs/temporary-folder.ts";

const packageRoot = findPackageRoot(dirname(fileURLToPath(import.meta.url)));
const deploy = join(packageRoot, "deploy");
const temporary = temporaryFolder();
const read = (name: string) => readFileSync(join(deploy, name), "utf8");
const yaml = (name: string): unknown => parse(read(name), { merge: true });

/** Every option of `blipfleet worker`, e.g. "--stages". */
const workerFlags = (() => {
  const program = new Command();
  addWorkerCommand(program);
  const worker = program.commands.find((command) => command.name() === "worker");
  assert.ok(worker);
  return worker.options.map((option) => option.long);
})();

function findPackageRoot(folder: string): string {
  return existsSync(join(folder, "package.json")) ? folder : findPackageRoot(dirname(folder));
}

/** Run a tool that this machine may have; undefined when it has not. */
function runTool(command: string, args: readonly string[]): { status: number | null; output: string } | undefined {
  const { status, stdout, stderr, error } = spawnSync(command, args, { encoding: "utf8" });
  return error === undefined ? { status, output: `${stdout}${stderr}` } : undefined;
}

function expectWorkerFlags(where: string, words: readonly string[]): void {
  const flags = words.filter((word) => word.startsWith("--")).map((word) => word.replace(/=.*/, ""));
  assert.ok(flags.length > 0, `${where}: expected options of blipfleet worker`);
  for (const flag of flags) assert.ok(workerFlags.includes(flag), `${where}: blipfleet worker has no option ${flag}`);
}

describe("nats.conf", () => {
  test("nats-server accepts it, and refuses a broken copy", () => {
    const nats = findServer("nats-server");
    const good = runTool(nats, ["-t", "-c", join(deploy, "nats.conf")]);
    assert.equal(good?.status, 0, good?.output);
    const broken = join(temporary, "broken.conf");
    writeFileSync(broken, read("nats.conf").replace("max_payload: 8MB", "max_paylod: 8MB"));
    assert.notEqual(runTool(nats, ["-t", "-c", broken])?.status, 0);
  });

  test("a server that runs it takes prompts of eight megabytes", async () => {
    const configFile = join(temporary, "nats.conf");
    // The container's folder and fixed monitoring port are all that changes.
    const text = read("nats.conf").replace(
      "store_dir: /data",
      `store_dir: ${JSON.stringify(join(temporary, "store"))}`,
    );
    writeFileSync(configFile, text.replace("http: 8222", "http: 127.0.0.1:-1"));
    const server = await startNats({ storeDir: join(temporary, "nats"), configFile });
    try {
      const connection = await connectNats({ NATS_URL: server.url });
      const store = await openJetStreamPromptStore(connection);
      assert.deepEqual(store.drift, []);
      assert.equal((await store.limits()).maxPayload, 8 * 1024 * 1024);
      await store.checkPlan({ activationBytes: 577 * 1408 * 4 });
      await connection.close();
    } finally {
      await server.stop();
    }
  });
});

const healthcheck = z.strictObject({
  test: z.tuple([z.literal("CMD")], z.string()),
  interval: z.string(),
  timeout: z.string(),
  retries: z.number().int().positive(),
  start_period: z.string().optional(),
});

const service = z.strictObject({
  image: z.string().regex(/^[a-z0-9./-]+(:[\w.-]+)?$/),
  build: z.strictObject({ context: z.literal(".."), dockerfile: z.string() }).optional(),
  init: z.boolean().optional(),
  restart: z.enum(["unless-stopped", "on-failure"]),
  stop_grace_period: z.string().optional(),
  environment: z.record(z.string().regex(/^[A-Z][A-Z0-9_]*$/), z.string()).optional(),
  volumes: z.array(z.string()).optional(),
  ports: z.array(z.string().regex(/^127\.0\.0\.1:\d+:\d+$/, "published on the loopback interface only")).optional(),
  depends_on: z
    .record(z.string(), z.strictObject({ condition: z.enum(["service_healthy", "service_completed_successfully"]) }))
    .optional(),
  healthcheck: healthcheck.optional(),
  entrypoint: z.array(z.string()).optional(),
  command: z.array(z.string()).optional(),
  deploy: z.strictObject({ replicas: z.number().int().positive() }).optional(),
});

const composeSchema = z.strictObject({
  name: z.string(),
  "x-worker": z.unknown(),
  "x-temporal": z.unknown(),
  services: z.record(z.string(), service),
  volumes: z.record(z.string(), z.null()),
});

describe("compose.yaml", () => {
  const compose = composeSchema.parse(yaml("compose.yaml"));
  const { services } = compose;

  test("docker compose accepts it where there is one", (t) => {
    const files = ["--file", join(deploy, "compose.yaml"), "--file", join(deploy, "compose.nvidia.yaml")];
    if (runTool("docker", ["compose", "version"])?.status !== 0) {
      t.diagnostic("no docker compose on this machine; the field checks beside this stand alone");
      assert.ok(compose.services);
      return;
    }
    const checked = runTool("docker", ["compose", ...files, "config", "--quiet"]);
    assert.equal(checked?.status, 0, checked?.output);
  });

  test("what services depend on is there, and healthy means a health check", () => {
    for (const [name, { depends_on: needs = {} }] of Object.entries(services)) {
      for (const [other, { condition }] of Object.entries(needs)) {
        assert.ok(services[other], `${name} depends on ${other}`);
        if (condition === "service_healthy") assert.ok(services[other]?.healthcheck, `${other} has a health check`);
        else assert.equal(services[other]?.restart, "on-failure", `${other} ends by itself`);
      }
    }
  });

  test("volumes are declared, and mounted files exist", () => {
    const used = Object.values(services).flatMap(({ volumes = [] }) =>
      volumes.map((volume) => volume.split(":")[0] ?? ""),
    );
    const named = used.filter((source) => /^[a-z]/.test(source));
    assert.deepEqual([...new Set(named)].sort(), Object.keys(compose.volumes).sort());
    for (const source of used.filter((path) => path.startsWith("./"))) {
      assert.ok(existsSync(join(deploy, source)), `${source} is mounted`);
    }
  });

  test("one worker encodes and queries, two generate, with options that the command has", () => {
    const stages = (name: string) => services[name]?.command?.find((word) => word.startsWith("--stages="));
    assert.equal(stages("encode"), "--stages=encode,query");
    assert.equal(stages("generate"), "--stages=generate");
    assert.equal(services.encode?.deploy, undefined);
    assert.equal(services.generate?.deploy?.replicas, 2);
    for (const name of ["encode", "generate"]) {
      const { command = [], environment = {} } = services[name] ?? {};
      assert.equal(command[0], "worker");
      expectWorkerFlags(name, command);
      assert.equal(environment.NATS_URL, "nats://nats:4222");
      assert.equal(environment.TEMPORAL_ADDRESS, "temporal:7233");
    }
  });

  test("Temporal gets the search attributes and matching settings that the code uses", () => {
    const script = services["temporal-settings"]?.command?.join("\n") ?? "";
    const created = /for attribute in (.*); do/.exec(script)?.[1]?.split(" ");
    assert.deepEqual(
      created,
      Object.entries(searchAttributes).map(([name, type]) => `${name}=${type}`),
    );
    const shell = runTool("/bin/sh", ["-n", "-c", script.replaceAll("$$", "$")]);
    assert.equal(shell?.status, 0, shell?.output);
    const settings = z.record(z.string(), z.tuple([z.strictObject({ value: z.boolean() })]));
    const dynamic = settings.parse(yaml("temporal-dynamic-config.yaml"));
    assert.deepEqual(
      Object.fromEntries(Object.entries(dynamic).map(([key, [{ value }]]) => [key, value])),
      matchingSettings,
    );
    assert.ok(
      services.temporal?.volumes?.some((volume) =>
        volume.startsWith(`./temporal-dynamic-config.yaml:${services.temporal?.environment?.DYNAMIC_CONFIG_FILE_PATH}`),
      ),
    );
  });

  test("the script that creates search attributes works against a shell stand-in, twice", () => {
    // A `temporal` that remembers in a file what was created.
    const bin = join(temporary, "bin");
    const made = join(temporary, "attributes");
    writeFileSync(made, "BlipfleetDone Int\n");
    spawnSync("mkdir", ["-p", bin]);
    writeFileSync(
      join(bin, "temporal"),
      `#!/bin/sh\nif [ "$3" = list ]; then cat ${made}; else shift 5; echo "$2 $4" >> ${made}; fi\n`,
      { mode: 0o755 },
    );
    const script = (services["temporal-settings"]?.command?.[0] ?? "").replaceAll("$$", "$");
    const [shell = "", flag = ""] = services["temporal-settings"]?.entrypoint ?? [];
    for (let run = 0; run < 2; run += 1) {
      const done = spawnSync(shell, [flag, script], { encoding: "utf8", env: { PATH: `${bin}:/usr/bin:/bin` } });
      assert.equal(done.status, 0, done.stderr);
    }
    const expected = Object.entries(searchAttributes).map(([name, type]) => `${name} ${type}`);
    assert.deepEqual(readFileSync(made, "utf8").trim().split("\n"), expected);
  });

  test("the NVIDIA file gives each worker one GPU and nothing else", () => {
    const gpu = z.strictObject({
      "x-gpu": z.unknown(),
      services: z.record(
        z.enum(["encode", "generate"]),
        z.strictObject({
          deploy: z.strictObject({
            resources: z.strictObject({
              reservations: z.strictObject({
                devices: z.tuple([
                  z.strictObject({
                    driver: z.literal("nvidia"),
                    count: z.literal(1),
                    capabilities: z.array(z.string()),
                  }),
                ]),
              }),
            }),
          }),
        }),
      ),
    });
    gpu.parse(yaml("compose.nvidia.yaml"));
  });
});

describe("prometheus.yml", () => {
  const schema = z.strictObject({
    global: z.strictObject({ scrape_interval: z.string().regex(/^\d+s$/) }),
    scrape_configs: z.tuple([
      z.strictObject({
        job_name: z.string(),
        dns_sd_configs: z.array(
          z.strictObject({
            names: z.array(z.string()),
            type: z.literal("A"),
            port: z.number(),
            refresh_interval: z.string(),
          }),
        ),
      }),
    ]),
  });

  test("promtool accepts it where there is one", (t) => {
    const checked = runTool("promtool", ["check", "config", join(deploy, "prometheus.yml")]);
    if (checked === undefined) t.diagnostic("no promtool on this machine; the field check beside this stands alone");
    assert.equal(checked?.status ?? 0, 0, checked?.output);
  });

  test("it scrapes every worker service at its metrics port", () => {
    const { scrape_configs: configs } = schema.parse(yaml("prometheus.yml"));
    const { services } = composeSchema.parse(yaml("compose.yaml"));
    const workers = Object.entries(services).filter(([, { command }]) => command?.[0] === "worker");
    const [found] = configs[0].dns_sd_configs;
    assert.ok(found);
    assert.deepEqual(
      found.names,
      workers.map(([name]) => name),
    );
    for (const [name, { command }] of workers) {
      assert.ok(command?.includes(`--metrics-port=${found.port}`), `${name} serves metrics at ${found.port}`);
    }
  });
});

describe("Dockerfile", () => {
  // Instructions with their arguments; continued lines joined, comments left out.
  const instructions = read("Dockerfile")
    .replace(/^#.*\n/gm, "")
    .replace(/\\\n/g, " ")
    .split("\n")
    .filter((line) => line.trim() !== "")
    .map((line) => {
      const [instruction = "", ...rest] = line.trim().split(/\s+/);
      return { instruction, rest };
    });
  const of = (name: string) => instructions.filter(({ instruction }) => instruction === name).map(({ rest }) => rest);

  test("docker accepts it where there is a builder", (t) => {
    if (runTool("docker", ["buildx", "version"])?.status !== 0) {
      t.diagnostic("no docker buildx on this machine; the field checks beside this stand alone");
    } else {
      const checked = runTool("docker", [
        "buildx",
        "build",
        "--check",
        "--file",
        join(deploy, "Dockerfile"),
        packageRoot,
      ]);
      assert.equal(checked?.status, 0, checked?.output);
    }
    const known = [
      "FROM",
      "RUN",
      "ENV",
      "WORKDIR",
      "COPY",
      "USER",
      "VOLUME",
      "EXPOSE",
      "STOPSIGNAL",
      "ENTRYPOINT",
      "CMD",
    ];
    for (const { instruction } of instructions) assert.ok(known.includes(instruction), instruction);
  });

  test("both stages run the Node that the package asks for, and the last one is not root", () => {
    const bases = of("FROM").map(([image]) => image);
    assert.equal(bases.length, 2);
    assert.ok(bases.every((image) => image === "node:20-trixie-slim"));
    assert.match(JSON.parse(readFileSync(join(packageRoot, "package.json"), "utf8")).engines.node, /^>=20\./);
    assert.deepEqual(of("USER"), [["node"]]);
    const order = instructions.map(({ instruction }) => instruction);
    assert.ok(order.lastIndexOf("USER") > order.lastIndexOf("RUN"));
  });

  test("what it copies exists, and a run finds all that it needs", () => {
    const copies = of("COPY").filter((rest) => rest[0]?.startsWith("--from=build"));
    const sources = copies.map((rest) => (rest[1] ?? "").replace("/app/", ""));
    for (const source of sources) {
      assert.ok(source.startsWith("dist/") || existsSync(join(packageRoot, source)), `${source} exists`);
    }
    for (const needed of [
      "package.json",
      "node_modules",
      "bin",
      "dist/src",
      "dist/workflow-bundle.js",
      "shaders",
      "tuning",
    ]) {
      assert.ok(sources.includes(needed), `${needed} is in the image`);
    }
    const [first = []] = of("COPY");
    for (const name of first.slice(0, -1)) assert.ok(existsSync(join(packageRoot, name)), name);
    const ignored = read("Dockerfile.dockerignore").split("\n");
    for (const needed of ["src", "bench", "examples", "scripts", "bin", "shaders", "models"]) {
      assert.ok(!ignored.includes(needed), `${needed} is sent to the build`);
    }
  });

  test("it starts a worker with options that the command has, at the port that it exposes", () => {
    const [entry] = of("ENTRYPOINT");
    const [command] = of("CMD");
    const words = z.array(z.string()).parse(JSON.parse((command ?? []).join(" ")));
    assert.deepEqual(JSON.parse((entry ?? []).join(" ")), ["node", "/app/bin/blipfleet.mjs"]);
    assert.equal(words[0], "worker");
    expectWorkerFlags("Dockerfile", words);
    assert.deepEqual(of("EXPOSE"), [[words[words.indexOf("--metrics-port") + 1]]]);
  });
});

describe("blipfleet-worker.service", () => {
  const text = read("blipfleet-worker.service");
  const value = (key: string) => new RegExp(`^${key}=(.*)$`, "m").exec(text)?.[1];

  test("systemd accepts it without a word where there is one, and complains about a broken copy", (t) => {
    const file = join(deploy, "blipfleet-worker.service");
    const checked = runTool("systemd-analyze", ["verify", "--man=no", file]);
    if (checked === undefined) {
      t.diagnostic("no systemd-analyze on this machine; the field check beside this stands alone");
      assert.match(text, /\[Service\]/);
      return;
    }
    assert.deepEqual(checked, { status: 0, output: "" });
    const broken = join(temporary, "broken.service");
    writeFileSync(broken, text.replace("RestartSec=5", "RestartSec=soon\nNoSuchSetting=1"));
    assert.match(runTool("systemd-analyze", ["verify", "--man=no", broken])?.output ?? "", /NoSuchSetting|RestartSec/);
  });

  test("it has its three sections, ends gracefully, comes back, and is not root", () => {
    assert.deepEqual(
      [...text.matchAll(/^\[(\w+)\]$/gm)].map(([, name]) => name),
      ["Unit", "Service", "Install"],
    );
    assert.equal(value("User"), "blipfleet");
    assert.equal(value("Restart"), "always");
    assert.equal(value("KillSignal"), "SIGTERM");
    assert.ok(Number(value("TimeoutStopSec")) >= 60);
  });

  test("it starts a worker with options that the command has", () => {
    const words = (value("ExecStart") ?? "").split(" ");
    assert.deepEqual(words.slice(0, 4), ["/usr/bin/env", "node", "/opt/blipfleet/bin/blipfleet.mjs", "worker"]);
    expectWorkerFlags("ExecStart", words);
    const example = /^# +WORKER_OPTIONS=(.*)$/m.exec(text)?.[1] ?? "";
    expectWorkerFlags("WORKER_OPTIONS", example.split(" "));
  });
});
