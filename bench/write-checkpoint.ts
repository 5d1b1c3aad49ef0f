// npm run checkpoint:full: a checkpoint with random weights in the shapes of a published one, to load and to time.

import { parseArgs } from "node:util";
import { writeRandomCheckpoint } from "./random-checkpoint.ts";
import { quickForm, type ShapeName, trueShapes } from "./true-shapes.ts";

const names = Object.keys(trueShapes) as ShapeName[];
const usage = `usage: npm run checkpoint:full -- DIR [--shapes NAME] [--seed NUMBER] [--quick]
  DIR            the folder to write: config, tokenizer, processor, weights in f16 as shards with an index
  --shapes NAME  ${names.join(", ")}; default ${names[0]}, 7.5 GB
  --seed NUMBER  a whole number; equal seeds give equal files. Default 1
  --quick        the same kind in a few megabytes: two layers of each part`;

async function main(): Promise<void> {
  const { positionals, values } = parseArgs({
    allowPositionals: true,
    options: {
      shapes: { type: "string", default: names[0] },
      seed: { type: "string", default: "1" },
      quick: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    process.stdout.write(`${usage}\n`);
    return;
  }
  const [folder] = positionals;
  const shapes = names.find((name) => name === values.shapes);
  if (folder === undefined || positionals.length > 1) throw new Error(`expected one folder\n${usage}`);
  if (shapes === undefined) throw new Error(`--shapes: expected ${names.join(", ")}, got ${values.shapes}`);
  if (!/^\d{1,9}$/.test(values.seed)) throw new Error(`--seed: expected a whole number, got ${values.seed}`);
  const wanted = values.quick ? quickForm(trueShapes[shapes]) : trueShapes[shapes];
  let [done, told] = [0, 0];
  const started = performance.now();
  const onBytes = (bytes: number) => {
    done += bytes;
    if (done - told < 1e9) return;
    told = done;
    process.stderr.write(`checkpoint: ${(done / 1e9).toFixed(0)} GB\n`);
  };
  await writeRandomCheckpoint(folder, {
    ...wanted,
    weights: { ...wanted.weights, seed: Number(values.seed), onBytes },
  });
  const seconds = (performance.now() - started) / 1000;
  process.stdout.write(`${folder}: ${shapes}, ${done} bytes of weights in ${seconds.toFixed(1)} s\n`);
}

main().catch((error: unknown) => {
  process.stderr.write(`checkpoint: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 2;
});
