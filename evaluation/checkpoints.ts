// Which checkpoint is evaluated: the one that the recorded figures and answers are about, and no other.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { openCheckpoint } from "../src/weights/checkpoint.ts";
import { checkpointDigest } from "../src/weights/digest.ts";
import { EvaluationError } from "./errors.ts";

const recordedDigests = z.record(z.string(), z.string());

/**
 * The digest of a checkpoint of the models' folder, which must be the one that digests.json there records.
 * @throws EvaluationError, CheckpointError
 */
export async function recordedDigest(models: string, name: string, cacheFolder?: string): Promise<string> {
  const file = join(models, "digests.json");
  const text = await readFile(file, "utf8").catch(() => null);
  if (text === null) {
    throw new EvaluationError(
      `${file}: expected the digests of the demo models, got no such file; restore it with git`,
    );
  }
  const wanted = recordedDigests.parse(JSON.parse(text))[name];
  if (wanted === undefined) throw new EvaluationError(`${file}: expected a digest of ${name}, got none`);
  const checkpoint = await openCheckpoint(join(models, name));
  const digest = await checkpointDigest(checkpoint, cacheFolder === undefined ? {} : { cacheFolder });
  if (digest === wanted) return digest;
  throw new EvaluationError(
    `${join(models, name)}: expected the checkpoint that ${file} records (${wanted.slice(0, 12)}), got another ` +
      `(${digest.slice(0, 12)}); restore its files with git`,
  );
}
