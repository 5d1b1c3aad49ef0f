// Which variant of a kernel is taken, and what becomes of one that does not work.

import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, test } from "node:test";
import { z } from "zod";
import type { AdapterReport } from "../../src/gpu/adapter.ts";
import { openGpu } from "../../src/gpu/device.ts";
import { packageRoot } from "../../src/gpu/package-root.ts";
import type { Recorder } from "../../src/gpu/recorder.ts";
import { fallbackTable, type TableFile, tablesFor } from "../../src/gpu/tuning-table.ts";
import { type Operation, type Variant, Variants } from "../../src/gpu/variants.ts";
import { openWithTable, testTable } from "./own-table.ts";

const report: AdapterReport = {
  vendor: "mesa",
  architecture: "",
  device: "llvmpipe-llvm-15-0-6-256-bits-",
  description: "driver 1",
  softwareAdapter: true,
  subgroupMinSize: 8,
  subgroupMaxSize: 8,
  features: ["subgroups"],
  matrices: [],
  limits: { maxComputeWorkgroupStorageSize: 32768 },
  toggles: [],
};

const variant = z.strictObject({ size: z.number().int().min(1), kind: z.string().optional() });

/** Kinds other than "plain" ask for a feature of that name, sizes above 100 for as much workgroup memory. */
const doubling: Operation = {
  name: "double",
  classes: ["one row", "more rows"],
  variant: variant as Operation["variant"],
  needs: ({ size, kind }) => ({
    ...(kind === undefined ? {} : { features: [String(kind)] }),
    ...(Number(size) > 100 ? { limits: { maxComputeWorkgroupStorageSize: Number(size) } } : {}),
  }),
};

type Given = Readonly<Record<string, readonly Variant[]>>;

const table = (file: string, classes: Given): TableFile => ({ file, table: testTable({ double: classes }) });

test("the first variant of the first table that has the class is taken", () => {
  const tables = [
    table("own", { "one row": [{ size: 4 }, { size: 2 }] }),
    table("shipped", { "one row": [{ size: 8 }], "more rows": [{ size: 16 }] }),
  ];
  const variants = new Variants(tables, report, assert.fail);
  const one = variants.choose(doubling, "one row");
  assert.deepEqual([one.variant, one.table], [{ size: 4 }, "own"]);
  assert.equal(variants.choose(doubling, "one row"), one);
  const more = variants.choose(doubling, "more rows");
  assert.deepEqual([more.variant, more.table], [{ size: 16 }, "shipped"]);
  const { tables: told, choices, refused } = variants.describe();
  assert.deepEqual(
    told.map(({ file }) => file),
    ["own", "shipped"],
  );
  assert.deepEqual(
    choices.map((choice) => [choice.shapeClass, choice.variant]),
    [
      ["one row", { size: 4 }],
      ["more rows", { size: 16 }],
    ],
  );
  assert.deepEqual(refused, []);
});

test("a refused variant is told once, and passed over in all classes and tables", () => {
  const told: string[] = [];
  const tables = [
    table("own", { "one row": [{ size: 4 }, { size: 2 }], "more rows": [{ size: 4 }] }),
    table("shipped", { "one row": [{ size: 4 }], "more rows": [{ size: 4 }, { size: 8 }] }),
  ];
  const variants = new Variants(tables, report, (line) => told.push(line));
  const one = variants.choose(doubling, "one row");
  const more = variants.choose(doubling, "more rows");
  one.refuse("it computes wrongly");
  more.refuse("it computes wrongly");
  assert.deepEqual(told, [
    "kernels: double (size=4) is refused on this adapter, the next variant is taken: it computes wrongly",
  ]);
  assert.deepEqual(variants.choose(doubling, "one row").variant, { size: 2 });
  assert.deepEqual(variants.choose(doubling, "more rows").variant, { size: 8 });
  assert.deepEqual(variants.refused, [{ operation: "double", variant: { size: 4 }, reason: "it computes wrongly" }]);
  variants.choose(doubling, "one row").refuse("nor does this");
  assert.throws(() => variants.choose(doubling, "one row"), {
    name: "KernelError",
    message:
      /^double, one row: expected a variant that works on mesa llvmpipe.*, got none that is left:\nsize=4: it computes wrongly\nsize=2: nor does this$/,
  });
});

test("what a table says and the operation does not know is refused, what the adapter lacks is passed over", () => {
  const told: string[] = [];
  const unknown = [{ size: 0 }, { size: 1, kind: "subgroups" }];
  const tables = [
    table("own", { "one row": unknown, "more rows": [{ size: 65536 }, { size: 1, kind: "shader-f16" }] }),
  ];
  const variants = new Variants(tables, report, (line) => told.push(line));
  assert.deepEqual(variants.choose(doubling, "one row").variant, { size: 1, kind: "subgroups" });
  assert.equal(told.length, 1);
  assert.match(told[0] ?? "", /^kernels: double \(size=0\) is refused .*: own: size: /);
  assert.throws(
    () => variants.choose(doubling, "more rows"),
    /size=65536: needs maxComputeWorkgroupStorageSize of 65536, got 32768\nkind=shader-f16 size=1: needs shader-f16$/,
  );
  assert.equal(told.length, 1);
});

test("an operation that no table has is an error", () => {
  const variants = new Variants([table("own", {})], report, assert.fail);
  assert.throws(() => variants.choose(doubling, "one row"), /double, one row: expected .*: ?\nno table has one$/);
});

test("an adapter gets the tables of its driver before the one of its kind", () => {
  const names = (of: AdapterReport) => tablesFor(of).map(({ file }) => file.slice(dirname(file).length + 1));
  assert.equal(names(report).at(-1), "software.json");
  assert.deepEqual(names({ ...report, vendor: "other", softwareAdapter: false }), ["gpu.json"]);
  assert.notEqual(fallbackTable(true).file, fallbackTable(false).file);
});

const root = mkdtempSync(join(tmpdir(), "variants-"));
after(() => rmSync(root, { recursive: true }));

/** The same, asking nothing of the adapter. */
const compiled: Operation = { name: doubling.name, classes: doubling.classes, variant: doubling.variant };

/** y = 2 * x, with the variant's size as the shader's constant. */
function double(k: Recorder, x: ReturnType<Recorder["scratch"]>) {
  const choice = k.variants.choose(compiled, "one row");
  const y = k.scratch("y", [8]);
  k.launch("scale-add", {
    inputs: { x, bias: x },
    outputs: { y },
    params: { count: 8, scale: 2 },
    constants: { WORKGROUP: choice.variant.size ?? 0 },
    workgroups: [8],
    choice,
  });
  return y;
}

test("a variant that does not compile is refused with the shader's line, and the next one computes", async () => {
  const shaders = join(root, "shaders");
  mkdirSync(shaders);
  // 5000000000u is no u32.
  writeFileSync(
    join(shaders, "scale-add.wgsl"),
    `const WORKGROUP = 8u;
struct Params { count: u32, scale: f32 }
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> bias: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;
@compute @workgroup_size(1)
fn main(@builtin(workgroup_id) id: vec3u) {
  var doubled: array<f32, WORKGROUP>;
  doubled[id.x % WORKGROUP] = params.scale * x[id.x];
  y[id.x] = doubled[id.x % WORKGROUP];
}
`,
  );
  const before = process.env.BLIPFLEET_SHADERS;
  process.env.BLIPFLEET_SHADERS = shaders;
  const told: string[] = [];
  const given = testTable({ double: { "one row": [{ size: 5_000_000_000 }, { size: 4 }] } });
  const gpu = await openWithTable(join(root, "compile"), given, (line) => told.push(line));
  try {
    let tested = 0;
    gpu.variants.retest = async () => void tested++;
    const x = gpu.alloc("x", [8], "f32");
    await gpu.upload(x, new Uint8Array(Float32Array.from([1, 2, 3, 4, 5, 6, 7, 8]).buffer));
    const list = await gpu.record("double", (k) => double(k, x));
    const [y = new ArrayBuffer(0)] = await gpu.submit([list], { reads: [list.result] });
    assert.deepEqual([...new Float32Array(y)], [2, 4, 6, 8, 10, 12, 14, 16]);
    assert.equal(told.length, 1, told.join("\n"));
    assert.match(
      told[0] ?? "",
      /^kernels: double \(size=5000000000\) is refused .*: shaders\/scale-add\.wgsl:1:\d+ \S/,
    );
    assert.equal(tested, 1, "the next variant is tested before it computes");
    gpu.variants.choose(compiled, "one row").refuse("neither");
    await assert.rejects(
      gpu.record("double", (k) => double(k, x)),
      /got none that is left:\nsize=5000000000: shaders\/scale-add\.wgsl:1:\d+ .*\n(.*\n)*size=4: neither$/,
    );
  } finally {
    gpu.close();
    if (before === undefined) delete process.env.BLIPFLEET_SHADERS;
    else process.env.BLIPFLEET_SHADERS = before;
  }
});

test("a table of this machine that cannot be read is told, and the package's own are used", async () => {
  const told: string[] = [];
  const gpu = await openWithTable(join(root, "unreadable"), '{"format": 2}', (line) => told.push(line));
  assert.deepEqual(gpu.variants.tables, tablesFor(gpu.report));
  assert.equal(told.length, 1);
  assert.match(told[0] ?? "", /^kernels: .*\.json: expected a tuning table, got .*`blipfleet tune` writes it anew$/);
  gpu.close();
});

test("with the family chosen by hand only the table of that kind counts", async () => {
  for (const softwareAdapter of [true, false]) {
    const gpu = await openGpu({ nap: true, softwareAdapter });
    const files = gpu.variants.tables.map(({ file }) => file);
    assert.equal(files.at(-1), join(packageRoot, "tuning", softwareAdapter ? "software.json" : "gpu.json"));
    if (softwareAdapter !== gpu.report.softwareAdapter) assert.equal(files.length, 1);
    gpu.close();
  }
});
