// Wrong use of the command line: exit status 2, one sentence, and nothing on stdout.

import assert from "node:assert/strict";
import { test } from "node:test";
import { createProgram, exitStatus, tellError } from "../../src/cli/program.ts";
import { CheckpointError, HubError, WeightsError } from "../../src/weights/errors.ts";

/** Parse a command line in this process. */
async function run(...args: string[]): Promise<{ status: number; stdout: string; stderr: string }> {
  const [write, writeError] = [process.stdout.write, process.stderr.write];
  const out: string[] = [];
  const err: string[] = [];
  const outcome = (status: number) => ({ status, stdout: out.join(""), stderr: err.join("") });
  process.stdout.write = ((text: string) => Boolean(out.push(text))) as typeof process.stdout.write;
  process.stderr.write = ((text: string) => Boolean(err.push(text))) as typeof process.stderr.write;
  try {
    await createProgram().parseAsync(args, { from: "user" });
    return outcome(exitStatus.allDone);
  } catch (error) {
    return outcome(tellError(error, args));
  } finally {
    [process.stdout.write, process.stderr.write] = [write, writeError];
  }
}

const wrong: readonly (readonly [string, RegExp])[] = [
  ["captoin x.jpg", /unknown command 'captoin' \(Did you mean caption\?\); see `blipfleet --help`/],
  ["nonsense --help", /unknown command 'nonsense'; see `blipfleet --help`/],
  ["job nonsense --help", /unknown command 'nonsense'; see `blipfleet job --help`/],
  ["help nonsense", /unknown command 'nonsense'; see `blipfleet --help`/],
  ["caption", /missing required argument 'image'; see `blipfleet caption --help`/],
  ["ask x.jpg", /missing required argument 'question'; see `blipfleet ask --help`/],
  ["caption x.jpg --num-beam 3", /unknown option '--num-beam' \(Did you mean --num-beams\?\)/],
  ["caption x.jpg --num-beams 0", /--num-beams: expected a whole number from 1 to 32, got "0"/],
  ["caption x.jpg --length-penalty", /'--length-penalty <number>' argument missing/],
  ["caption x.jpg --dtype int2", /--dtype: expected f32, f16, int8, int4 or auto, got "int2"/],
  ["caption x.jpg --format json", /--format: expected text or jsonl, got "json"/],
  ["caption x.jpg --seed 3", /--seed: expected --do-sample beside it, got none; add it, or leave --seed out/],
  ["caption x.jpg --do-sample --num-beams 2", /--do-sample: expected --num-beams 1 beside it, got 2/],
  ["caption x.jpg --stream --format jsonl", /--stream: expected --format text beside it, got jsonl/],
  ["caption x.jpg --stream --num-beams 3", /--stream: expected --num-beams 1 beside it, got 3/],
  ["ask x.jpg why --all-scores", /--all-scores: expected --answers beside it, got none/],
  ["ask x.jpg why --answers nowhere.txt", /--answers: expected a text file, got "nowhere.txt" \(ENOENT\)/],
  ["ask x.jpg why --answers package.json --top-k 3 --do-sample", /--do-sample: expected no flags of generation beside/],
  ["ask x.jpg why --answers package.json --stream", /--stream: expected no --answers beside it/],
  ["ask x.jpg why --answers /dev/null", /--answers: expected an answer a line in \/dev\/null, got none/],
  ["ask x.jpg why --keep-answers 3", /--keep-answers: expected --answers beside it, got none/],
  ["ask x.jpg why --answers package.json --keep-answers 0", /--keep-answers: expected a whole number from 1 to 16384/],
  ["job submit photos --answers package.json", /--answers: expected --task ask beside it, got caption/],
  ["job submit photos --task ask --prompt why --answers none.txt", /--answers: expected a text file, got "none.txt"/],
  ["job submit photos --top-p 1.5", /--top-p: expected a number from 0 to 1, got "1.5"/],
  ["job submit photos --task look", /--task.*Allowed choices are caption, ask, match, classify, index, capfilt/],
  ["job submit photos --task ask", /--task ask: expected the question in --prompt, .* got neither/],
  ["job submit photos --task match", /--task match: expected texts in --text, or a .jsonl or .csv list .* got neither/],
  [
    "job submit photos --task classify",
    /--task classify: expected labels in --label, or a .jsonl or .csv list .* got neither/,
  ],
  [
    "job submit photos --task match --text a --label dog",
    /--label: expected --task classify beside it, got match; leave/,
  ],
  ["job submit photos --task classify --label a --text dog", /--text: expected --task match beside it, got classify/],
  ["job submit photos --template {}", /--template: expected --task classify beside it, got caption; leave it out/],
  ["job submit photos --task classify --label a --template b", /--template: expected a text with \{\} in the place of/],
  [
    "job submit photos --task classify --label a --num-beams 2",
    /--num-beams: expected --task caption or ask or capfilt/,
  ],
  ["job submit photos --text dog", /--text: expected --task match beside it, got caption; leave it out/],
  [
    "job submit photos --task index --num-beams 2",
    /--num-beams: expected --task caption or ask or capfilt beside it, got/,
  ],
  [
    "job submit photos --task match --text dog --threshold 0.5",
    /--threshold: expected --task capfilt beside it, got match/,
  ],
  ["job submit photos --index x", /--index: expected --task index beside it, got caption/],
  ["capfilt", /missing required argument 'source'; see `blipfleet capfilt --help`/],
  ["capfilt photos --threshold 1.5", /--threshold: expected a number from 0 to 1, got "1.5"/],
  ["job frob", /unknown command 'frob'/],
  ["job status", /missing required argument 'id'; see `blipfleet job status --help`/],
  ["worker --stages encode,decode", /--stages: expected a list of encode, query, generate, got "decode"/],
  ["bench --only nothing", /--only: expected one of pipeline, prompt-store, .*, got "nothing"/],
  ["match x.jpg", /missing required argument 'text'; see `blipfleet match --help`/],
  ["match x.jpg text --num-beams 2", /unknown option '--num-beams'/],
  ["index photos", /required option '--out <file>' not specified; see `blipfleet index --help`/],
  ["search text", /required option '--index <file>' not specified; see `blipfleet search --help`/],
  ["search text --index x --top 0", /--top: expected a whole number from 1 to 100000, got "0"/],
  ["search text --index x --rerank -1", /--rerank: expected a whole number from 0 to 100000, got "-1"/],
  ["classify x.jpg", /missing required argument 'label'; see `blipfleet classify --help`/],
  [
    "classify x.jpg cat --template photo",
    /--template: expected a text with \{\} in the place of the label, got "photo"/,
  ],
  ["chat", /missing required argument 'image'; see `blipfleet chat --help`/],
  ["chat x.jpg --language fr", /--language.*Allowed choices are zh, en/],
  ["eval --data x", /eval: .* not available yet/],
  ["tune --clock sun", /--clock.*Allowed choices are wall, processor/],
  ["serve --port 8000", /serve: .* not available yet/],
];

for (const [line, expected] of wrong) {
  test(`wrong use: ${line}`, async () => {
    const { status, stdout, stderr } = await run(...line.split(" "));
    assert.equal(status, 2);
    assert.equal(stdout, "");
    assert.match(stderr, expected);
    assert.equal(stderr.trimEnd().split("\n").length, 1, stderr);
  });
}

test("wrong use: empty texts, as a shell variable without a value gives", async () => {
  const given: [string, string[]][] = [
    ["question", ["ask", "x.jpg", "why?", ""]],
    ["text", ["match", "x.jpg", ""]],
    ["label", ["classify", "x.jpg", "cat", ""]],
    ["text", ["search", "", "--index", "x"]],
    ["--text", ["job", "submit", "photos", "--task", "match", "--text", ""]],
    ["--label", ["job", "submit", "photos", "--task", "classify", "--label", "cat", ""]],
  ];
  for (const [name, args] of given) {
    const { status, stdout, stderr } = await run(...args);
    assert.deepEqual([status, stdout], [2, ""], stderr);
    assert.match(
      stderr,
      new RegExp(`^blipfleet: (UsageError: )?${name}: expected a text, got an empty one; write it, .*\n$`),
    );
  }
});

test("help is no error, goes to stdout and shows examples", async () => {
  for (const line of [
    "--help",
    "caption --help",
    "ask --help",
    "match --help",
    "classify --help",
    "index --help",
    "search --help",
    "job --help",
    "job submit --help",
    "worker --help",
  ]) {
    const { status, stdout, stderr } = await run(...line.split(" "));
    assert.equal(status, 0, line);
    assert.match(stdout, /Example/, line);
    assert.equal(stderr, "", line);
  }
});

test("help names defaults, and none where there is none", async () => {
  const { stdout } = await run("worker", "--help");
  const text = stdout.replace(/\s+/g, " ");
  for (const [flag, value] of [
    ["--metrics-port <port>", "9464, a free one where it is taken"],
    ["--batch-slots <count>", "2"],
    ["--now-slots <count>", "4"],
    ["--grace-seconds <seconds>", "60"],
  ]) {
    assert.match(text, new RegExp(`${flag} [^()]*\\(default: ${value}\\)`), flag);
  }
  for (const command of ["worker", "search", "classify", "job submit"]) {
    assert.doesNotMatch((await run(...command.split(" "), "--help")).stdout, /default:\s+\[\]/, command);
  }
});

test("without a command the help is shown and the status is that of wrong use", async () => {
  assert.equal((await run()).status, 2);
  assert.equal((await run("job")).status, 2);
});

test("--version prints the version", async () => {
  const { status, stdout } = await run("--version");
  assert.equal(status, 0);
  assert.match(stdout, /^\d+\.\d+\.\d+\n$/);
});

test("mistakes of the caller and faults of the machine have different statuses", () => {
  const write = process.stderr.write;
  const told: string[] = [];
  process.stderr.write = ((text: string) => Boolean(told.push(text))) as typeof process.stderr.write;
  try {
    assert.equal(tellError(new CheckpointError("x: expected a directory"), []), 2);
    assert.equal(tellError(new WeightsError("x", ["y: expected (1), got (2)"]), []), 2);
    assert.equal(tellError(new HubError("the hub is down"), []), 1);
    assert.equal(tellError(new TypeError("a bug"), []), 1);
  } finally {
    process.stderr.write = write;
  }
  assert.equal(told[0], "blipfleet: CheckpointError: x: expected a directory\n");
});

test("a name cannot steer the terminal", () => {
  const write = process.stderr.write;
  const told: string[] = [];
  process.stderr.write = ((text: string) => Boolean(told.push(text))) as typeof process.stderr.write;
  try {
    tellError(new WeightsError("x", ["\u001b[31mred\r\n\u009b.weight: expected no tensor of this name"]), []);
  } finally {
    process.stderr.write = write;
  }
  assert.match(told[0] ?? "", /\n {2}\\u001b\[31mred\\u000d\\n\\u009b\.weight: expected no tensor of this name\n$/);
});
