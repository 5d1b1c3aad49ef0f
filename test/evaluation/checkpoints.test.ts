import assert from "node:assert/strict";
import { cp, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { recordedDigest } from "../../evaluation/checkpoints.ts";
import { EvaluationError } from "../../evaluation/errors.ts";
import { openCheckpoint } from "../../src/weights/checkpoint.ts";
import { checkpointDigest } from "../../src/weights/digest.ts";
import { modelFolder } from "../models/parity.ts";

const models = await mkdtemp(join(tmpdir(), "blipfleet-evaluation-"));
after(() => rm(models, { recursive: true, force: true }));
const name = "some-model";
const folder = join(models, name);
await cp(modelFolder("blip2-opt-tiny"), folder, { recursive: true });
const digest = await checkpointDigest(await openCheckpoint(folder));
const record = (digests: unknown) => writeFile(join(models, "digests.json"), JSON.stringify(digests));

/** One sentence, of that class. */
const refusal = (pattern: RegExp) => (error: unknown) => {
  assert.ok(error instanceof EvaluationError);
  assert.match(error.message, pattern);
  assert.doesNotMatch(error.message, /\n/);
  return true;
};

test("without recorded digests nothing is evaluated", async () => {
  await rm(join(models, "digests.json"), { force: true });
  await assert.rejects(
    recordedDigest(models, name),
    refusal(/digests\.json: expected the digests .*, got no such file/),
  );
  await record({ "another-model": digest });
  await assert.rejects(
    recordedDigest(models, name),
    refusal(/digests\.json: expected a digest of some-model, got none/),
  );
});

test("the recorded checkpoint is accepted, a changed one refused", async () => {
  await record({ [name]: digest });
  assert.equal(await recordedDigest(models, name), digest);
  await writeFile(join(folder, "special_tokens_map.json"), "{}");
  await assert.rejects(
    recordedDigest(models, name),
    refusal(new RegExp(`some-model: expected the checkpoint that .*${digest.slice(0, 12)}.*, got another .*restore`)),
  );
});
