// Reporter for `node --test`: a line per file, every failure in full, the adapters that tests named, and the counts as
// JSON in the file that BLIPFLEET_TEST_COUNTS names.

import { writeFileSync } from "node:fs";
import { relative } from "node:path";
import { inspect } from "node:util";

// A reader that has seen enough (`| head`) ends the run; node:test ends its children at this signal.
process.stdout.on("error", (error) => {
  if (error.code !== "EPIPE") throw error;
  process.kill(process.pid, "SIGTERM");
});

/** Test files print one such line for the adapter they ran on. */
const adapterPattern = /^adapter: (.+)$/gm;

const indent = (text) => text.replace(/^/gm, "    ");

function describe(error) {
  const cause = error?.cause ?? error;
  return typeof cause === "string" ? cause : (cause?.stack ?? inspect(cause));
}

// biome-ignore lint/style/noDefaultExport: node:test asks reporters for a default export
export default async function* report(source) {
  const counts = { files: 0, passed: 0, failed: 0, skipped: 0, empty: [], adapters: [] };
  const perFile = new Map();
  const of = (file) => {
    if (!perFile.has(file)) perFile.set(file, { passed: 0, failed: 0, milliseconds: 0, output: "" });
    return perFile.get(file);
  };
  const lineOf = (file) => {
    const { passed, failed, milliseconds, output } = of(file);
    perFile.delete(file); // tests that two files share are told for each
    counts.files += 1;
    counts.passed += passed;
    counts.failed += failed;
    const verdict = failed > 0 ? "FAIL" : passed > 0 ? "ok  " : "none";
    if (verdict === "none") counts.empty.push(relative(process.cwd(), file));
    const seconds = (milliseconds / 1000).toFixed(1).padStart(6);
    const line = `${verdict} ${seconds} s ${String(passed).padStart(4)} tests  ${relative(process.cwd(), file)}\n`;
    if (failed === 0 || output.trim() === "") return line;
    return `${line}${indent(`output of this file:\n${output.trim().slice(-4000)}`)}\n`;
  };
  let current = null;
  const adapters = new Set();
  for await (const { type, data } of source) {
    const file = data?.file ?? "?";
    if (type === "test:stderr" || type === "test:stdout") {
      of(file).output += data.message;
      for (const [, adapter] of data.message.matchAll(adapterPattern)) adapters.add(adapter);
      continue;
    }
    if (type !== "test:pass" && type !== "test:fail") continue;
    // A test with tests inside fails because of them, and they are told; the file itself is told when it broke.
    if (data.details?.type === "suite") continue;
    const isFile = data.name === file && data.nesting === 0;
    if (current !== null && file !== current) yield lineOf(current); // files are told one after the other
    current = file;
    const entry = of(file);
    if (isFile) {
      entry.milliseconds = data.details.duration_ms;
      if (type === "test:pass" || entry.failed > 0) continue;
    } else if (data.nesting === 0) {
      entry.milliseconds += data.details.duration_ms;
    }
    if (data.skip !== undefined || data.todo !== undefined) {
      counts.skipped += 1;
      yield `SKIP ${relative(process.cwd(), file)}: ${data.name}\n`;
    } else if (type === "test:pass") {
      entry.passed += 1;
    } else if (data.details.error?.failureType === "subtestsFailed") {
      // counted below it
    } else {
      entry.failed += 1;
      yield `FAIL ${relative(process.cwd(), file)}: ${data.name}\n${indent(describe(data.details.error))}\n`;
    }
  }
  if (current !== null) yield lineOf(current);
  counts.adapters = [...adapters];
  if (process.env.BLIPFLEET_TEST_COUNTS) writeFileSync(process.env.BLIPFLEET_TEST_COUNTS, JSON.stringify(counts));
}
