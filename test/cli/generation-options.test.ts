import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { Command } from "commander";
import { UsageError } from "../../src/cli/errors.ts";
import {
  addGenerationOptions,
  type GenerationFlags,
  generationFrom,
  samplingGenerationFrom,
} from "../../src/cli/generation-options.ts";
import { addFormatOption, addModelOptions, chooseModel } from "../../src/cli/model-options.ts";
import { defaultGeneration, type Generation } from "../../src/stages.ts";

function parse(...args: string[]): Generation {
  const command = addGenerationOptions(new Command("caption")).exitOverride();
  command.configureOutput({ outputError: () => {} }).parse(args, { from: "user" });
  return generationFrom(command.opts<GenerationFlags>());
}

test("without flags the defaults of Hugging Face's generate() hold", () => {
  assert.deepEqual(parse(), defaultGeneration);
  assert.deepEqual(defaultGeneration, {
    maxNewTokens: 20,
    minNewTokens: 0,
    numBeams: 1,
    lengthPenalty: 1,
    repetitionPenalty: 1,
    repetitionPenaltyScope: "all",
    doSample: false,
    temperature: 1,
    topK: 50,
    topP: 1,
    seed: 0,
    stopStrings: [],
  });
});

test("every flag reaches its own setting, negative values after a space included", () => {
  const flags = "--max-new-tokens 7 --min-new-tokens 2 --num-beams 5 --length-penalty -1.0 --repetition-penalty 1.5";
  assert.deepEqual(parse(...flags.split(" ")), {
    ...defaultGeneration,
    maxNewTokens: 7,
    minNewTokens: 2,
    numBeams: 5,
    lengthPenalty: -1,
    repetitionPenalty: 1.5,
  });
  assert.equal(parse("--length-penalty=-0.5").lengthPenalty, -0.5);
  const sampling = "--do-sample --temperature 0.7 --top-k 0 --top-p 0.9 --seed 9007199254740991";
  assert.deepEqual(parse(...sampling.split(" ")), {
    ...defaultGeneration,
    doSample: true,
    temperature: 0.7,
    topK: 0,
    topP: 0.9,
    seed: 2 ** 53 - 1,
  });
  assert.deepEqual(parse("--do-sample"), { ...defaultGeneration, doSample: true });
  assert.deepEqual(parse("--stop", "\n", "--stop", " and", "--repetition-penalty-scope", "new"), {
    ...defaultGeneration,
    stopStrings: ["\n", " and"],
    repetitionPenaltyScope: "new",
  });
});

test("values that cannot be are wrong use, and the message names flag and value", () => {
  const wrong = [
    ["--max-new-tokens", "0"],
    ["--max-new-tokens", "2.5"],
    ["--max-new-tokens", ""],
    ["--min-new-tokens", "-1"],
    ["--num-beams", "0"],
    ["--num-beams", "many"],
    ["--length-penalty", "NaN"],
    ["--length-penalty", "Infinity"],
    ["--repetition-penalty", "0"],
    ["--repetition-penalty", "-2"],
    ["--temperature", "0"],
    ["--temperature", "hot"],
    ["--top-k", "-1"],
    ["--top-k", "1.5"],
    ["--top-p", "1.01"],
    ["--top-p", ""],
    ["--seed", "-1"],
    ["--seed", "9007199254740992"],
    ["--stop", ""],
  ];
  for (const [flag = "", value = ""] of wrong) {
    assert.throws(
      () => parse(flag, value),
      (error: Error) =>
        error instanceof UsageError &&
        error.message.startsWith(`${flag}: `) &&
        error.message.includes(JSON.stringify(value)),
      `${flag} ${value}`,
    );
  }
  assert.throws(
    () => parse("--min-new-tokens", "9", "--max-new-tokens", "8"),
    /--min-new-tokens: expected at most --max-new-tokens \(8\), got 9/,
  );
});

test("flags of sampling without --do-sample, and with beams, are refused, not ignored", () => {
  for (const args of [
    ["--temperature", "0.5"],
    ["--top-k", "5"],
    ["--top-p", "0.9"],
    ["--seed", "1"],
  ]) {
    assert.throws(
      () => parse(...args),
      (error: Error) =>
        error instanceof UsageError && error.message.startsWith(`${args[0]}: expected --do-sample beside it`),
      args.join(" "),
    );
  }
  assert.throws(
    () => parse("--do-sample", "--num-beams", "2"),
    /^UsageError: --do-sample: expected --num-beams 1 beside it, got 2; there is no beam sampling$/,
  );
  assert.throws(() => parse("--stop", "x", "--num-beams", "3"), /--stop: expected --num-beams 1 beside it, got 3/);
  assert.throws(() => parse("--repetition-penalty-scope", "prompt"), /Allowed choices are all, new/);
});

test("an unknown flag is an error", () => {
  assert.throws(() => parse("--max-tokens", "5"), /unknown option '--max-tokens'/);
});

test("--dtype and --format take what there is and refuse what is not there yet", () => {
  const opts = (...args: string[]) => {
    const command = addFormatOption(addModelOptions(new Command("caption"))).exitOverride();
    return command.parse(args, { from: "user" }).opts();
  };
  assert.deepEqual(opts(), { dtype: "auto", format: "text" });
  assert.deepEqual(opts("--dtype", "f16", "--format", "jsonl", "--model", "a/b"), {
    dtype: "f16",
    format: "jsonl",
    model: "a/b",
  });
  assert.throws(() => opts("--dtype", "int2"), /--dtype: expected f32, f16, int8, int4 or auto, got "int2"/);
  for (const dtype of ["f32", "f16", "int8", "int4", "auto"]) assert.equal(opts("--dtype", dtype).dtype, dtype);
  assert.throws(() => opts("--dtype", "float32"), UsageError);
  assert.throws(() => opts("--format", "json"), UsageError);
});

test("without --model the demo model stands in, and says what it is", () => {
  assert.deepEqual(chooseModel("org/name"), { ref: "org/name", notice: null });
  assert.throws(() => chooseModel(""), UsageError);
  const { ref, notice } = chooseModel(undefined);
  assert.match(ref, /models\/./);
  assert.match(notice ?? "", /demo model/);
});

test("the demo model is one that fits the command", () => {
  const folder = mkdtempSync(join(tmpdir(), "demo-models-"));
  const put = (name: string, config: Record<string, unknown>) => {
    mkdirSync(join(folder, name));
    writeFileSync(join(folder, name, "config.json"), JSON.stringify({ model_type: "blip-2", ...config }));
  };
  assert.throws(() => chooseModel(undefined, "matches", folder), {
    name: "UsageError",
    message: /^--model: expected .*Blip2ForImageTextRetrieval.*, got none, and no demo model that has a matching head/,
  });
  put("a-compares", { architectures: ["Blip2ForImageTextRetrieval"] });
  put("b-other", { model_type: "clip", architectures: ["CLIPModel"] });
  assert.throws(() => chooseModel(undefined, "texts", folder), {
    name: "UsageError",
    message: /^--model: expected .*Blip2ForConditionalGeneration.*, got none, and no demo model that writes texts/,
  });
  assert.equal(chooseModel(undefined, "labels", folder).ref, join(folder, "b-other"));
  put("c-writes", { architectures: ["Blip2ForConditionalGeneration"] });
  assert.equal(chooseModel(undefined, "texts", folder).ref, join(folder, "c-writes"));
  const { ref, notice } = chooseModel(undefined, "matches", folder);
  assert.equal(ref, join(folder, "a-compares"));
  assert.match(notice ?? "", /using the demo model .*a-compares; choose another with --model/);
  assert.equal(chooseModel("org/name", "matches", folder).ref, "org/name");
  rmSync(folder, { recursive: true });
});

test("a command that samples unasked: nucleus sampling, flags go before it, beams stand for beam search", () => {
  const parsed = (...args: string[]) =>
    samplingGenerationFrom(
      addGenerationOptions(new Command("capfilt")).parse(args, { from: "user" }).opts<GenerationFlags>(),
    );
  const sampled = { ...defaultGeneration, doSample: true, topP: 0.9 };
  assert.deepEqual(parsed(), sampled);
  assert.deepEqual(parsed("--do-sample", "--seed", "3"), { ...sampled, seed: 3 });
  assert.deepEqual(parsed("--top-p", "0.5", "--top-k", "0"), { ...sampled, topP: 0.5, topK: 0 });
  assert.deepEqual(parsed("--num-beams", "3"), { ...defaultGeneration, numBeams: 3 });
  assert.throws(() => parsed("--num-beams", "3", "--do-sample"), UsageError);
  assert.throws(() => parsed("--num-beams", "3", "--top-p", "0.5"), UsageError);
});
