// npm run eval:demo: how good the demo models are on scenes that they have not seen, and that our kernels say what
// transformers says.

import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { UsageError } from "../src/cli/errors.ts";
import { wholeNumber } from "../src/cli/generation-options.ts";
import { tell, watchStdout, writeLine } from "../src/cli/output.ts";
import { tellError } from "../src/cli/program.ts";
import { openGpu } from "../src/gpu/device.ts";
import { packageRoot } from "../src/gpu/package-root.ts";
import { cacheFolder } from "../src/jobs/roots.ts";
import { checkModel } from "../src/models/model-card.ts";
import { type Dtype, dtypes } from "../src/stages.ts";
import { openTokenizer } from "../src/text/tokenizer.ts";
import { openCheckpoint } from "../src/weights/checkpoint.ts";
import { recordedDigest } from "./checkpoints.ts";
import { EvaluationError, OtherScenesError } from "./errors.ts";
import { findPartners } from "./partner-places.ts";
import { predict } from "./predictions.ts";
import { readPlaces, readReference } from "./reference.ts";
import { renderedSets } from "./render-sets.ts";
import { retrievalReport } from "./retrieval-report.ts";
import {
  readBlindAnswers,
  readSceneSet,
  readWords,
  retrievalSet,
  type SceneSet,
  type SceneSetName,
  sceneSets,
} from "./scene-sets.ts";
import { isAllEqual, reportLines, reportOf, type SetReport } from "./set-report.ts";
import { type LayerErrors, weightErrorLines, weightErrors } from "./weight-errors.ts";

const captioner = "blip2-opt-demo";
const matcher = "blip2-itm-demo";
const setNames = [...Object.keys(sceneSets), retrievalSet];

const usage = `usage: npm run eval:demo [-- OPTIONS]
  --set NAME        ${setNames.join(", ")}; may be repeated (default: all)
  --limit N         only the first N scenes of each set (${retrievalSet}: then not compared with the reference)
  --dtype TYPE      f32 (default), f16, int8 or int4, whose ids may differ from the reference's, which are of f32; of int8 and
                    int4 also how far each layer's matrices are from what is stored
  --json FILE       also write the figures to a file
  --models FOLDER   holds ${captioner}, ${matcher}, digests.json and reference/ (default: models)
Exit status: 0 all ids and places equal the reference's, 1 some differ or something is missing, 2 wrong use.
`;

interface Flags {
  readonly sets: readonly SceneSet["name"][];
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
      set: { type: "string", multiple: true, default: setNames },
      limit: { type: "string" },
      dtype: { type: "string", default: "f32" },
      json: { type: "string" },
      models: { type: "string", default: join(packageRoot, "models") },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) return null;
  const sets = [...new Set(values.set)].map((name) => {
    if (setNames.includes(name)) return name as SceneSet["name"];
    throw new UsageError(`--set: expected one of ${setNames.join(", ")}, got ${JSON.stringify(name)}`);
  });
  const { dtype } = values;
  const type = dtypes.find((each) => each === dtype);
  if (type === undefined) {
    throw new UsageError(`--dtype: expected one of ${dtypes.join(", ")}, got ${JSON.stringify(dtype)}`);
  }
  const limit =
    values.limit === undefined ? Number.POSITIVE_INFINITY : wholeNumber("--limit", 1, 1_000_000)(values.limit);
  return { sets, limit, dtype: type, json: values.json, models: values.models };
}

async function evaluate(flags: Flags): Promise<boolean> {
  const { sets, dtype, json, models } = flags;
  const isScored = (name: SceneSet["name"]): name is SceneSetName => name !== retrievalSet;
  const scored = sets.filter(isScored);
  const names = [...(scored.length > 0 ? [captioner] : []), ...(sets.every(isScored) ? [] : [matcher])];
  const digests: Record<string, string> = {};
  for (const name of names) digests[name] = await recordedDigest(models, name, cacheFolder());
  const folder = await renderedSets({
    cacheFolder: cacheFolder(),
    training: join(packageRoot, "training"),
    sets,
    environment: process.env,
    tell,
  });
  const errors = dtype === "int8" || dtype === "int4" ? await errorsOf(models, names, dtype) : undefined;
  const reports: SetReport[] = [];
  const print = (report: SetReport, about: string) => {
    reports.push(report);
    for (const line of [...reportLines(report, about), ""]) writeLine(line);
  };
  if (scored.length > 0) await evaluateTexts(folder, scored, flags, digests[captioner] ?? "", print);
  if (!sets.every(isScored)) {
    const about = "distinct captions, unseen combinations first, up to three kinds and seven objects";
    print(await evaluateSearch(folder, flags, digests[matcher] ?? ""), about);
  }
  if (json !== undefined) {
    await writeFile(
      json,
      `${JSON.stringify({ model_digests: digests, dtype, ...(errors && { weight_errors: errors }), sets: reports }, null, 2)}\n`,
    );
  }
  // All but f32 round what the recorded reference does not
  return dtype !== "f32" ? reports.every(({ equalities }) => equalities !== null) : reports.every(isAllEqual);
}

/** What quantization does to the matrices of these models, printed and returned by model. */
async function errorsOf(models: string, names: readonly string[], type: "int8" | "int4") {
  const gpu = await openGpu({ nap: true });
  const byModel: Record<string, readonly LayerErrors[]> = {};
  try {
    for (const name of names) {
      const checkpoint = await openCheckpoint(join(models, name));
      const { trees } = await checkModel(checkpoint, type, {
        digest: "",
        purpose: name === matcher ? "matches" : "texts",
      });
      const layers = await weightErrors(gpu, checkpoint, trees, type);
      byModel[name] = layers;
      for (const line of [`${name}:`, ...weightErrorLines(layers, type), ""]) writeLine(line);
    }
  } finally {
    gpu.close();
  }
  return byModel;
}

/** Captions and answers of the captioner. */
async function evaluateTexts(
  folder: string,
  sets: readonly SceneSetName[],
  { limit, dtype, models }: Flags,
  digest: string,
  print: (report: SetReport, about: string) => void,
): Promise<void> {
  const [words, blind] = await Promise.all([readWords(folder), readBlindAnswers(folder)]);
  const chosen = [];
  for (const name of sets) {
    const set = await readSceneSet(folder, name);
    const reference = await ofTheseScenes(readReference(models, set, digest));
    chosen.push({ name, items: set.items.slice(0, limit), reference: reference?.slice(0, limit) ?? null });
  }
  const model = join(models, captioner);
  const subjects = chosen.flatMap(({ name, items }) =>
    items.map((item) => ({ item, answered: sceneSets[name].answered })),
  );
  const predictions = await predict(model, dtype, subjects);
  const { detokenize } = await openTokenizer(model);
  let at = 0;
  for (const { name, items, reference } of chosen) {
    const mine = predictions.slice(at, at + items.length);
    at += items.length;
    const report = reportOf({ set: name, items, predictions: mine, reference }, words, blind, detokenize);
    print(report, sceneSets[name].about);
  }
}

/** What the matcher finds for captions and for pictures. */
async function evaluateSearch(folder: string, { limit, dtype, models }: Flags, digest: string): Promise<SetReport> {
  const set = await readSceneSet(folder, retrievalSet);
  const reference = await ofTheseScenes(readPlaces(models, set, digest));
  const items = set.items.slice(0, limit);
  const ours = await findPartners(join(models, matcher), dtype, items);
  if (items.length === set.items.length) return retrievalReport(ours, reference);
  // Places among fewer scenes are other places: there is nothing to compare, and nothing missing.
  return { ...retrievalReport(ours, null), equalities: [] };
}

/** null, and a line that tells why, where the reference saw other scenes. */
async function ofTheseScenes<T>(reading: Promise<T>): Promise<T | null> {
  try {
    return await reading;
  } catch (error) {
    if (!(error instanceof OtherScenesError)) throw error;
    tell(`eval:demo: ${error.message}`);
    return null;
  }
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
