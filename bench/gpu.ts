// npm run bench:gpu: what a GPU makes of the kernels, in one command that needs no network: weights are generated in the shapes
// of BLIP-2 with ViT-g and OPT-2.7b. What is measured is printed, and written, as it comes.

import { renameSync, writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { adapterLine } from "../src/gpu/adapter.ts";
import { type Gpu, openGpu } from "../src/gpu/device.ts";
import {
  decodeCases,
  dispatchGap,
  type GpuCase,
  type GpuRow,
  kernelCases,
  type Sizes,
  towerCases,
} from "./gpu-parts.ts";
import { huggingFaceRows } from "./hugging-face.ts";
import { measureLimits } from "./kernels/limits.ts";
import { optShape, vitShape } from "./kernels/shapes.ts";

const usage = `usage: npm run bench:gpu -- [OPTIONS]
  --json FILE      write the report to FILE too, anew after every line
  --quick          tiny shapes and few runs: tries the bench, measures nothing
  --only PART      one of kernels, images, decode, hugging-face (may be repeated)
  --seconds N      most seconds of one part, default 120; what is left of it is then named
`;

const parts = ["kernels", "images", "decode", "hugging-face"] as const;
type Part = (typeof parts)[number];

const trueSizes: Sizes = {
  vit: vitShape(257, 1408, 16, 6144),
  vitLayers: 39,
  patchSize: 14,
  opt: optShape(2560, 32, 10240, 255),
  optLayers: 32,
  vocabulary: 50304,
  qFormer: { queries: 32, width: 768, mlpWidth: 3072 },
  t5: { width: 2048, ffnWidth: 5120 },
  cached: [64, 256, 1024],
  batches: [1, 8, 32],
  newTokens: [96, 32],
  coldBytes: 256 * 2 ** 20,
};

const tinySizes: Sizes = {
  vit: vitShape(5, 16, 2, 32),
  vitLayers: 2,
  patchSize: 2,
  opt: optShape(32, 2, 64, 63),
  optLayers: 2,
  vocabulary: 64,
  qFormer: { queries: 4, width: 16, mlpWidth: 32 },
  t5: { width: 16, ffnWidth: 40 },
  cached: [8],
  batches: [1, 2],
  newTokens: [40, 2],
  coldBytes: 1024,
};

/** What is written with --json. */
interface Report {
  readonly command: string;
  readonly finished: boolean;
  readonly adapter: Gpu["report"];
  readonly limits: { readonly flopsPerSecond: number; readonly bytesPerSecond: number };
  readonly kernels: ReturnType<Gpu["variants"]["describe"]>["choices"];
  readonly rows: readonly GpuRow[];
  readonly huggingFace: readonly GpuRow[];
  /** What was not measured, and why. */
  readonly left: readonly string[];
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      json: { type: "string" },
      quick: { type: "boolean", default: false },
      only: { type: "string", multiple: true, default: [] },
      seconds: { type: "string", default: "120" },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    print(usage.trimEnd());
    return 0;
  }
  const seconds = Number(values.seconds);
  const unknown = values.only.filter((part) => !parts.some((each) => each === part));
  if (unknown.length > 0 || !(seconds > 0)) {
    process.stderr.write(`bench:gpu: expected parts among ${parts.join(", ")} and seconds above 0\n${usage}`);
    return 2;
  }
  const wanted = (part: Part) => values.only.length === 0 || values.only.includes(part);
  const sizes = values.quick ? tinySizes : trueSizes;
  const gpu = await openGpu({ nap: true, validation: false });
  try {
    describe(gpu);
    const limits = await measureLimits(gpu);
    print(`copy ${giga(limits.bytesPerSecond)} GB/s read and written, fma f32 ${giga(limits.flopsPerSecond)} GFLOP/s`);
    const rows: GpuRow[] = [];
    const huggingFace: GpuRow[] = [];
    const left: string[] = [];
    const write = (finished: boolean) => {
      if (values.json === undefined) return;
      const kernels = gpu.variants.describe().choices;
      const command = ["npm", "run", "bench:gpu", "--", ...process.argv.slice(2)].join(" ");
      const report: Report = { command, finished, adapter: gpu.report, limits, kernels, rows, huggingFace, left };
      // Never half a file: the machine may be taken away at any time.
      writeFileSync(`${values.json}.part`, `${JSON.stringify(report, null, 2)}\n`);
      renameSync(`${values.json}.part`, values.json);
    };
    const keep = (list: GpuRow[], row: GpuRow) => {
      list.push(row);
      print(line(row));
      write(false);
    };
    const cases: Readonly<Record<Exclude<Part, "hugging-face">, readonly GpuCase[]>> = {
      kernels: [dispatchGap(), ...kernelCases(sizes, ["f16"])],
      images: towerCases(sizes, "f16"),
      decode: (["f16", "int8", "int4"] as const).flatMap((type) => decodeCases(sizes, type)),
    };
    // What matters most comes first: a short loan may end before the rest.
    for (const part of ["decode", "images", "kernels"] as const) {
      if (!wanted(part)) continue;
      print(`\n${part}`);
      const end = performance.now() + 1000 * seconds;
      for (const each of cases[part]) {
        if (performance.now() > end) {
          left.push(`${each.name}: no time left of the ${seconds} s of ${part}`);
          continue;
        }
        try {
          keep(rows, await each.measure({ gpu, limits, seconds: values.quick ? 0 : 0.5 }));
        } catch (error) {
          left.push(`${each.name}: ${error instanceof Error ? error.message : String(error)}`);
          print(`not measured: ${left.at(-1)}`);
          await gpu.submit([]); // a lost device ends the run here
        }
      }
    }
    for (const { operation, shapeClass, variant } of gpu.variants.describe().choices) {
      print(
        `ran ${operation}, ${shapeClass}: ${Object.entries(variant)
          .map(([name, value]) => `${name}=${value}`)
          .join(" ")}`,
      );
    }
    if (wanted("hugging-face")) {
      print("\nHugging Face transformers in PyTorch, fp16");
      await huggingFaceRows(
        { quick: values.quick, seconds },
        (row) => keep(huggingFace, row),
        (reason) => {
          left.push(`Hugging Face: ${reason}`);
          print(`not measured: ${reason}`);
        },
      );
      beside(rows, huggingFace);
    }
    write(true);
    return 0;
  } finally {
    gpu.close();
  }
}

function describe({ report }: Gpu): void {
  print(adapterLine(report));
  print(`features ${report.features.join(", ") || "none"}`);
  const matrices = report.matrices.map(({ M, N, K, input, result }) => `${M}x${N}x${K} ${input} to ${result}`);
  print(`subgroup matrices ${matrices.join(", ") || "none"}`);
  for (const [name, value] of Object.entries(report.limits)) print(`${name} ${value}`);
}

const giga = (value: number) => (value / 1e9).toPrecision(4);

function line({ name, value, unit, teraflops, gigabytes, ofBandwidth, ofLimit }: GpuRow): string {
  const more = [
    teraflops === undefined ? "" : `${teraflops.toPrecision(3)} TFLOP/s`,
    gigabytes === undefined ? "" : `${gigabytes.toPrecision(3)} GB/s`,
    ofBandwidth === undefined ? "" : `${(100 * ofBandwidth).toFixed(0)} % of the copy`,
    ofLimit === undefined ? "" : `${(100 * ofLimit).toFixed(0)} % of the f32 limit`,
  ].filter((text) => text !== "");
  return `${name.padEnd(44)} ${value.toPrecision(4).padStart(10)} ${unit.padEnd(9)} ${more.join(", ")}`.trimEnd();
}

/** The same figures of both, in one line. */
function beside(ours: readonly GpuRow[], peers: readonly GpuRow[]): void {
  for (const peer of peers) {
    const own = ours.find(({ name }) => peer.name.startsWith(`${name},`));
    if (!own) continue;
    const ratio = (own.value / peer.value).toPrecision(3);
    print(
      `${peer.name}: ours ${own.value.toPrecision(4)}, theirs ${peer.value.toPrecision(4)} ${own.unit}, ${ratio} times`,
    );
  }
}

function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

try {
  process.exit(await main());
} catch (error) {
  const wrongUse = error instanceof Error && "code" in error && String(error.code).startsWith("ERR_PARSE_ARGS");
  process.stderr.write(
    wrongUse ? `bench:gpu: ${error.message}\n${usage}` : `${error instanceof Error ? error.stack : error}\n`,
  );
  process.exit(wrongUse ? 2 : 1);
}
