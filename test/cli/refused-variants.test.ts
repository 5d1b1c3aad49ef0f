// Two faults that a machine's table and its driver may bring: a variant that does not compile, and one that computes wrongly.
// The ids stay right, and it is told. The faults are put there as a user could: a table in the cache folder, and, for the
// driver's part, a copy of the shaders in which one tile is wrong.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { shaderFolder } from "../../src/gpu/package-root.ts";
import { leaveOwnTable, testTable } from "../gpu/own-table.ts";
import { type Case, commandOf, expectedLine, model, runCli } from "./run-cli.ts";

const root = mkdtempSync(join(tmpdir(), "refused-"));
after(() => rmSync(root, { recursive: true }));

interface LogLine {
  readonly level: string;
  readonly msg: string;
  readonly [field: string]: unknown;
}

/** What a worker logs until it waits for servers that are not there. */
async function logOfWorker(name: string, env: NodeJS.ProcessEnv): Promise<LogLine[]> {
  const command = ["worker", "--model", model(name), "--dtype", "f32", "--metrics-port", "0"];
  const worker = spawn(process.execPath, [join(import.meta.dirname, "../../src/cli/main.js"), ...command], {
    env,
    stdio: ["ignore", "ignore", "pipe"],
  });
  let log = "";
  worker.stderr.setEncoding("utf8").on("data", (text: string) => {
    const waited = log.includes("waiting for NATS");
    log += text;
    if (!waited && log.includes("waiting for NATS")) worker.kill("SIGTERM");
  });
  const status = await new Promise((resolve) => worker.on("close", resolve));
  assert.equal(status, 0, log);
  const lines = log.split("\n").filter((line) => line.startsWith("{"));
  return lines.map((line) => JSON.parse(line));
}

test("faulty variants are refused, told with their line or answer, remembered, and the ids stay right", async () => {
  const shaders = join(root, "shaders");
  cpSync(shaderFolder(), shaders, { recursive: true });
  const matmul = join(shaders, "matmul.wgsl");
  const text = readFileSync(matmul, "utf8");
  const broken = text.replace("= finish(sums", "= select(0.0, 1.0, VECS == 3u) + finish(sums");
  assert.notEqual(broken, text);
  writeFileSync(matmul, broken);
  const uncompiled = { shader: "matmul", WORKGROUP: 8, ROWS: 1, VECS: 5_000_000_000 };
  // One tile for everything, because the copy is compiled anew.
  const right = { shader: "matmul", WORKGROUP: 8, ROWS: 2, VECS: 1 };
  const wrong = { shader: "matmul", WORKGROUP: 8, ROWS: 1, VECS: 3 };
  const classes = ["1 row", "2 to 4 rows", "5 to 8 rows", "9 to 16 rows", "17 to 64 rows", "more rows"].flatMap(
    (rows) => ["f32", "f16"].map((type) => [`${type}, ${rows}`, [uncompiled, wrong, right]]),
  );
  const named = { matmul: Object.fromEntries(classes), attention: { "no such queries": [right] } };
  const file = await leaveOwnTable(join(root, "cache"), testTable(named));
  const env = { ...process.env, BLIPFLEET_CACHE: join(root, "cache"), BLIPFLEET_SHADERS: shaders };

  const name = "blip2-opt-tiny";
  const { cases }: { cases: readonly Case[] } = JSON.parse(readFileSync(join(model(name), "expected.json"), "utf8"));
  const [given] = cases;
  assert.ok(given);
  for (const when of ["found", "remembered"]) {
    const { status, stdout, stderr } = await runCli(commandOf(given, name, "f32"), env);
    assert.equal(status, 0, stderr);
    assert.deepEqual(JSON.parse(stdout), expectedLine(given), when);
    const told = stderr.split("\n").filter((line) => line.includes("is refused"));
    assert.equal(told.length, 2, `${when}: ${stderr}`);
    assert.match(
      told[0] ?? "",
      /^kernels: matmul \(.*VECS=5000000000.*\) is refused .*: shaders\/matmul\.wgsl:\d+:\d+ \S/,
    );
    assert.match(
      told[1] ?? "",
      /^kernels: matmul \(.*VECS=3 .*\) is refused .*: self-test of matmul .*: expected .*, got /,
    );
  }

  const alone = { ...env, TEMPORAL_ADDRESS: "127.0.0.1:9", NATS_URL: "127.0.0.1:9" };
  const doctor = await runCli(["doctor", "--format", "jsonl"], alone);
  assert.equal(doctor.status, 0, doctor.stdout + doctor.stderr);
  const findings: { check: string; ok: boolean; detail: string }[] = doctor.stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  const about = (check: string) => findings.filter((each) => each.check === check).map(({ detail }) => detail);
  assert.equal(about("refused variant").length, 2);
  assert.match(about("refused variant")[1] ?? "", /VECS=3 .* is refused/);
  assert.ok(about("tuning tables")[0]?.startsWith(file), about("tuning tables")[0]);
  assert.match(about("tuning tables")[0] ?? "", /, then .*tuning\/software\.json \(not measured\)$/);
  assert.deepEqual(about("tuning table"), [
    `${file}: expected classes of shapes that this version knows, got attention, no such queries, which nothing reads; run \`blipfleet tune\`, or delete the file`,
  ]);
  assert.match(about("variants")[0] ?? "", /matmul .* for f32, 1 row/);

  const logged = await logOfWorker(name, alone);
  const warned = logged.filter(({ level, msg }) => level === "warn" && msg.includes("is refused"));
  assert.equal(warned.length, 2, JSON.stringify(logged));
  assert.match(
    warned[0]?.msg ?? "",
    /^kernels: matmul \(.*VECS=5000000000.*\) is refused .*: shaders\/matmul\.wgsl:\d+:\d+ \S/,
  );
  assert.match(warned[1]?.msg ?? "", /^kernels: matmul \(.*VECS=3 .*\) is refused .*: expected .*, got /);
  const opened = logged.find(({ msg }) => msg === "adapter opened");
  assert.match(String(opened?.tables), /software\.json$/);
  const refused = opened?.refused as { operation: string; variant: { VECS: number }; reason: string }[];
  assert.deepEqual(
    refused.map(({ operation, variant }) => [operation, variant.VECS]),
    [
      ["matmul", 5_000_000_000],
      ["matmul", 3],
    ],
  );
  for (const [i, { reason }] of refused.entries()) assert.ok(warned[i]?.msg.endsWith(reason), reason);
});
