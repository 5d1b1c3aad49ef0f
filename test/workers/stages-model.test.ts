// A real checkpoint through all threads: every case of the fixture at once, so that rows of different calls share
// batches, against what transformers answers to each alone.

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { packageRoot } from "../../src/gpu/package-root.ts";
import { defaultGeneration } from "../../src/stages.ts";
import { openStagesGroup } from "../../src/workers/stages.ts";

interface Case {
  readonly name: string;
  readonly image: string;
  readonly prompt: string | null;
  readonly generation: Readonly<Record<string, number>>;
  readonly token_ids: readonly number[];
  readonly text: string;
}

const fixtures = join(packageRoot, "test/fixtures");
const ref = join(fixtures, "models/blip2-opt-tiny");
const { cases } = JSON.parse(readFileSync(join(ref, "expected.json"), "utf8")) as { cases: readonly Case[] };
const cacheFolder = mkdtempSync(join(tmpdir(), "stages-model-"));
// A low limit splits the vocabulary matrix and others, as real checkpoints need it on small bindings.
const group = await openStagesGroup({ cacheFolder, ioThreads: 1, bindingLimit: 64 * 1024 });
after(async () => {
  await group.close();
  rmSync(cacheFolder, { recursive: true });
});

test("all cases at once give the ids and texts of transformers, in shared batches", async () => {
  assert.equal(group.selfTest, "passed");
  const stages = await group.open({ ref, dtype: "f32" });
  const results = await Promise.all(
    cases.map(async ({ image, prompt, generation }) => {
      const pixels = await stages.toPixels(readFileSync(join(fixtures, "images", image)));
      const made = await stages.encodeAndQuery(pixels);
      const ids = await stages.generate(made, await stages.tokenize(prompt), {
        ...defaultGeneration,
        maxNewTokens: generation.max_new_tokens ?? Number.NaN,
        minNewTokens: generation.min_new_tokens ?? Number.NaN,
        numBeams: generation.num_beams ?? Number.NaN,
        lengthPenalty: generation.length_penalty ?? Number.NaN,
        repetitionPenalty: generation.repetition_penalty ?? Number.NaN,
      });
      return { ids, text: await stages.detokenize(ids), made, pixels };
    }),
  );
  assert.ok(cases.length > 20, "the fixture has cases");
  cases.forEach(({ name, token_ids, text }, i) => {
    assert.deepEqual([results[i]?.ids, results[i]?.text], [token_ids, text], name);
  });
  const { programs } = await group.stats();
  for (const program of ["encodeAndQuery", "generate"]) {
    const { rows = 0, batches = 0 } = programs[`${ref} f32 ${program}`] ?? {};
    assert.equal(rows, cases.length);
    assert.ok(batches < rows, `${program}: ${batches} batches for ${rows} rows`);
  }
  const [{ made, pixels } = assert.fail("no case")] = results;
  assert.deepEqual(await stages.encodeAndQuery(pixels), made, "alone, the same bytes as in a batch");
  assert.deepEqual(await stages.query(await stages.encode(pixels)), made, "encode then query, the same bytes");
});
