// npm run eval:demo: how good the demo model is on scenes that it has not seen, and that our kernels say what transformers says.

import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { UsageError } from "../src/cli/errors.ts";
import { wholeNumber } from "../src/cli/generation-options.ts";
import { tell, watchStdout, writeLine } from "../src/cli/output.ts";
import { tellError } from "../src/cli/program.ts";
import { packageRoot } from "../src/gpu/package-root.ts";
import { cacheFolder } from "../src/jobs/roots.ts";
import type { Dtype } from "../src/stages.ts";
import { openTokenizer } from "../src/text/tokenizer.ts";
import { recordedDigest } from "./checkpoints.ts";
import { EvaluationError, OtherScenesError } from "./errors.ts";
import { predict } from "./predictions.ts";
import { readReference } from "./reference.ts";
import { renderedSets } from "./render-sets.ts";
import { readBlindAnswers, readSceneSet, readWords, type SceneSetName, sceneSets } from "./scene-sets.ts";
import { isAllEqual, reportLines, reportOf, type SetReport } from "./set-report.ts";

const captioner = "blip2-opt-demo";

const usage = `usage: npm run eval:demo [-- OPTIONS]
  --set NAME        ${Object.keys(sceneSets).join(", ")}; may be repeated (default: all)
  --limit N         only the first N scenes of each set
  --dtype TYPE      f32 (default) or f16, whose ids may differ from the reference's, which are of f32
  --json FILE       also write the figures to a file
  --models FOLDER   holds ${captioner}, digests.json and reference/ (default: models)
Exit status: 0 all ids equal the reference's, 1 some differ or something is missing, 2 wrong use.
`;

interface Flags {
  readonly sets: readonly SceneSetName[];
  readonly limit: number;
  readonly dtype: Dtype;
  readonly json: string | undefined;
  readonly models: string;
}

/** @throws UsageError; what parseArgs throws for unknown flags */
function flagsOf(args: readonly string[]): Flags | null {
  const { values } = parseArgs({
    args: [...args],
    options: {
      set: { type: "string", multiple: true, default: Object.keys(sceneSets) },
      limit: { type: "string" },
      dtype: { type: "string", default: "f32" },
      json: { type: "string" },
      models: { type: "string", default: join(packageRoot, "models") },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) return null;
  const sets = [...new Set(values.set)].map((name): SceneSetName => {
    if (name in sceneSets) return name as SceneSetName;
    throw new UsageError(`--set: expected one of ${Object.keys(sceneSets).join(", ")}, got ${JSON.stringify(name)}`);
  });
  const { dtype } = values;
  if (dtype !== "f32" && dtype !== "f16")
    throw new UsageError(`--dtype: expected f32 or f16, got ${JSON.stringify(dtype)}`);
  const limit =
    values.limit === undefined ? Number.POSITIVE_INFINITY : wholeNumber("--limit", 1, 1_000_000)(values.limit);
  return { sets, limit, dtype, json: values.json, models: values.models };
}

async function evaluate({ sets, limit, dtype, json, models }: Flags): Promise<boolean> {
  const digest = await recordedDigest(models, captioner, cacheFolder());
  const folder = await renderedSets({
    cacheFolder: cacheFolder(),
    training: join(packageRoot, "training"),
    sets,
    environment: process.env,
    tell,
  });
  const [words, blind] = await Promise.all([readWords(folder), readBlindAnswers(folder)]);
  const chosen = [];
  for (const name of sets) {
    const set = await readSceneSet(folder, name);
    const reference = await readReference(models, set, digest).catch((error: unknown) => {
      if (!(error instanceof OtherScenesError)) throw error;
      tell(`eval:demo: ${error.message}`);
      return null;
    });
    chosen.push({ name, items: set.items.slice(0, limit), reference: reference?.slice(0, limit) ?? null });
  }
  const model = join(models, captioner);
  const subjects = chosen.flatMap(({ name, items }) =>
    items.map((item) => ({ item, answered: sceneSets[name].answered })),
  );
  const predictions = await predict(model, dtype, subjects);
  const { detokenize } = await openTokenizer(model);
  const reports: SetReport[] = [];
  let at = 0;
  for (const { name, items, reference } of chosen) {
    const mine = predictions.slice(at, at + items.length);
    at += items.length;
    const report = reportOf({ set: name, items, predictions: mine, reference }, words, blind, detokenize);
    reports.push(report);
    for (const line of [...reportLines(report, sceneSets[name].about), ""]) writeLine(line);
  }
  if (json !== undefined) {
    const stated = { model: captioner, model_digest: digest, dtype, sets: reports };
    await writeFile(json, `${JSON.stringify(stated, null, 2)}\n`);
  }
  // f16 rounds what the recorded reference does not
  return dtype === "f16" ? reports.every(({ captionIds }) => captionIds !== null) : reports.every(isAllEqual);
}

watchStdout();
try {
  const flags = flagsOf(process.argv.slice(2));
  if (flags === null) writeLine(usage.trimEnd());
  else process.exitCode = (await evaluate(flags)) ? 0 : 1;
} catch (error) {
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  if (error instanceof UsageError || code.startsWith("ERR_PARSE_ARGS")) {
    tell(`eval:demo: ${(error as Error).message}\n${usage.trimEnd()}`);
    process.exitCode = 2;
  } else if (error instanceof EvaluationError) {
    tell(`eval:demo: ${error.message}`);
    process.exitCode = 1;
  } else {
    process.exitCode = tellError(error, []);
  }
}
process.stdout.write("", () => process.exit());
