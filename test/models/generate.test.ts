// generate against transformers' ids, and what must not change them: the batch, the submit, the split of the head.

import assert from "node:assert/strict";
import { after, test } from "node:test";
import { adapterLine } from "../../src/gpu/adapter.ts";
import { type Gpu, openGpu } from "../../src/gpu/device.ts";
import type { RowProgram } from "../../src/gpu/row-program.ts";
import { generateProgram, type StepPlan } from "../../src/models/generate.ts";
import type { GenerateRow } from "../../src/models/generate-row.ts";
import { defaultGeneration, type Generation } from "../../src/stages.ts";
import { generationOf, loadTinyOpt, tinyModels } from "./tiny-opt.ts";

const gpu: Gpu = await openGpu({ nap: true });
process.stderr.write(`adapter: ${adapterLine(gpu.report)}\n`);
after(() => gpu.close());

/** All rows, in batches of rows with equal keys, as a scheduler would. */
async function generateAll(
  program: RowProgram<GenerateRow, number[]>,
  rows: readonly GenerateRow[],
  mostRows = Number.POSITIVE_INFINITY,
): Promise<(number[] | Error)[]> {
  const results: (number[] | Error)[] = [];
  const byKey = new Map<string, number[]>();
  for (const [i, row] of rows.entries()) byKey.set(program.key(row), [...(byKey.get(program.key(row)) ?? []), i]);
  for (const [key, members] of byKey) {
    const size = Math.min(program.maxRows(key), mostRows);
    for (let from = 0; from < members.length; from += size) {
      const part = members.slice(from, from + size);
      const batch = program.start(part.map((i) => rows[i] as GenerateRow));
      let left = part.length;
      while (left > 0) {
        for (const result of await batch.step(new Set())) {
          results[part[result.row] ?? -1] = "value" in result ? result.value : result.error;
          left--;
        }
      }
      batch.release();
    }
  }
  return results;
}

for (const { name, cases } of tinyModels) {
  test(`${name}: ${cases.length} answers of transformers`, async () => {
    const tiny = await loadTinyOpt(gpu, name);
    const program = generateProgram(gpu, tiny.model);
    const rows = cases.map((each) => tiny.row(each.prompt, generationOf(each)));
    const answers = await generateAll(program, rows);
    program.close();
    const wrong = cases.filter((each, i) => JSON.stringify(answers[i]) !== JSON.stringify(each.token_ids));
    for (const each of wrong.slice(0, 8)) {
      process.stderr.write(`${JSON.stringify(each)}\n  got ${JSON.stringify(answers[cases.indexOf(each)])}\n`);
    }
    assert.equal(wrong.length, 0, `${wrong.length} of ${cases.length} answers differ`);
  });
}
