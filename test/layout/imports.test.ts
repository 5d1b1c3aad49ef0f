// Imports go one way, so that a reader going down never comes up again, and workflows stay deterministic.

import assert from "node:assert/strict";
import { posix } from "node:path";
import { test } from "node:test";
import { projectFiles, readProjectFile } from "./project-files.ts";

/** A part may import from the parts before it. */
const order = [
  "gpu",
  "kernels",
  "tuning",
  "models",
  "together",
  "answer",
  "chatting",
  "matching",
  "filtering",
  "classifying",
  "workers",
  "cli",
];
/** These import nothing of the parts above, only each other's types and src/stages.ts. */
const leaves = ["image", "text", "weights", "messages", "jobs", "search"];
/** The stage nouns: types that every part may import, and that import nothing. */
const shared = "stages";
/** Parts that workflows may import values from: names and types only, checked below to import nothing of theirs. */
const workflowMayImport = ["messages", "workflows"];

interface Import {
  readonly from: string;
  readonly to: string;
  readonly typeOnly: boolean;
}

/** Static imports, re-exports and dynamic imports of a source text. */
export function importsOf(path: string, source: string): Import[] {
  const found: Import[] = [];
  const code = source.replace(/^\s*(\/\/|\*).*$/gm, "");
  const statement = /^(?:import|export)\s+(type\s)?(?:[^"';]*?\sfrom\s*)?["']([^"']+)["']/gm;
  for (const [, type, to = ""] of code.matchAll(statement))
    found.push({ from: path, to, typeOnly: type !== undefined });
  for (const [, to = ""] of code.matchAll(/\bimport\(\s*["']([^"']+)["']\s*\)/g)) {
    found.push({ from: path, to, typeOnly: false });
  }
  return found;
}

/** The part of src/ that a relative import leads to, or null for a package. */
function partOf(from: string, to: string): string | null {
  if (!to.startsWith(".")) return null;
  const target = posix.normalize(posix.join(posix.dirname(from), to));
  const [top, part = ""] = target.split("/");
  return top === "src" ? part.replace(/\.ts$/, "") : `outside src (${target})`;
}

/** What is wrong with an import, or null. */
export function problemWith({ from, to, typeOnly }: Import): string | null {
  const part = partOf(from, "./self.ts") ?? "";
  const own = from === `src/${part}.ts` ? part : (from.split("/")[1] ?? "").replace(/\.ts$/, "");
  const other = partOf(from, to);
  if (other === null) {
    const isTemporalClient =
      to.startsWith("@temporalio/") && to !== "@temporalio/workflow" && to !== "@temporalio/common";
    if (own === "workflows" && !typeOnly && (isTemporalClient || to.startsWith("node:")))
      return "workflows are deterministic";
    if (to === "webgpu" && own !== "gpu") return "only src/gpu touches WebGPU";
    return null;
  }
  if (other === own || other === shared) return null;
  if (own === shared) return "the shared types import nothing";
  if (own === "workflows") return workflowMayImport.includes(other) ? null : "workflows import types and messages only";
  if (other === "workflows")
    return typeOnly || own === "workers" || own === "cli" ? null : "workflows are started by name";
  if (leaves.includes(own)) return leaves.includes(other) ? null : "leaves import leaves only";
  if (leaves.includes(other)) return null;
  const [mine, theirs] = [order.indexOf(own), order.indexOf(other)];
  if (mine < 0) return `src/${own} has no place in the order ${order.join(" < ")}`;
  return theirs >= 0 && theirs < mine ? null : `expected ${order.join(" < ")}`;
}

const sources = projectFiles("src").filter((path) => path.endsWith(".ts"));

test("imports go one way", () => {
  const problems = sources
    .flatMap((path) => importsOf(path, readProjectFile(path)))
    .flatMap((each) => {
      const problem = problemWith(each);
      return problem === null ? [] : [`${each.from} imports ${each.to}: ${problem}`];
    });
  assert.deepEqual(problems, []);
});

test("the import check sees what it must refuse", () => {
  const refused = [
    ["src/gpu/device.ts", 'import { matmul } from "../kernels/matmul.ts";'],
    ["src/kernels/matmul.ts", 'import type { Vit } from "../models/vit.ts";'],
    ["src/models/vit.ts", 'export { answer } from "../answer.ts";'],
    ["src/answer.ts", 'import { openStages } from "./workers/stages.ts";'],
    ["src/workers/worker.ts", 'const cli = await import("../cli/main.ts");'],
    ["src/image/decode.ts", 'import {\n  packageRoot,\n} from "../gpu/package-root.ts";'],
    ["src/messages/job.ts", 'import "../workers/worker.ts";'],
    ["src/workflows/job.ts", 'import { readFile } from "node:fs/promises";'],
    ["src/workflows/job.ts", 'import { Client } from "@temporalio/client";'],
    ["src/workflows/job.ts", 'import { openStages } from "../workers/stages.ts";'],
    ["src/models/load.ts", 'import { create } from "webgpu";'],
    ["src/stages.ts", 'import type { Tensor } from "./gpu/tensor.ts";'],
    ["src/cli/dev.ts", 'import { something } from "../../test/fixture-files.ts";'],
    ["src/extra/thing.ts", 'import { openGpu } from "../gpu/device.ts";'],
  ];
  for (const [path = "", source = ""] of refused) {
    const problems = importsOf(path, source).map(problemWith);
    assert.equal(problems.length, 1, `${path}: ${source}`);
    assert.notEqual(problems[0], null, `${path}: ${source}`);
  }
});

test("a forbidden import in a comment or a text is none", () => {
  assert.deepEqual(
    importsOf("src/gpu/a.ts", '// import { x } from "../cli/main.ts";\nconst text = "from nowhere";'),
    [],
  );
});

test("workflows import only types of everything but messages and each other", () => {
  const problems = projectFiles("src/workflows")
    .flatMap((path) => importsOf(path, readProjectFile(path)))
    .filter(({ from, to, typeOnly }) => {
      const part = partOf(from, to);
      return part !== null && !typeOnly && !workflowMayImport.includes(part);
    });
  assert.deepEqual(problems, []);
});

test("messages, which workflows run, hold no code that is not deterministic where workflows use it", () => {
  const used = new Set<string>();
  const visit = (path: string) => {
    if (used.has(path)) return;
    used.add(path);
    for (const { from, to, typeOnly } of importsOf(path, readProjectFile(path))) {
      if (!typeOnly && to.startsWith(".")) visit(posix.normalize(posix.join(posix.dirname(from), to)));
    }
  };
  for (const path of projectFiles("src/workflows")) visit(path);
  const problems = [...used]
    .flatMap((path) => importsOf(path, readProjectFile(path)))
    .filter(({ to, typeOnly }) => !typeOnly && (to.startsWith("node:") || to.startsWith("@nats-io/")));
  assert.deepEqual(problems, []);
});
