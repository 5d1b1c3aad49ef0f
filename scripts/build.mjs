// TypeScript to dist/, then the workflows to dist/workflow-bundle.js; nothing when the sources have not changed.

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { cacheFolder } from "../bin/environment.mjs";
import { SetupError, withLock } from "./setup/steps.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const sourceFolders = ["src", "test", "bench", "evaluation", "examples"];

/** Every .ts file of the project, relative, sorted. */
function sources() {
  return sourceFolders
    .filter((folder) => existsSync(join(root, folder)))
    .flatMap((folder) =>
      readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile() && entry.name.endsWith(".ts"))
        .map((entry) => join(entry.parentPath ?? entry.path, entry.name).slice(root.length)),
    )
    .sort();
}

function digest(paths) {
  const hash = createHash("sha256");
  for (const path of [...paths, "tsconfig.json", "package-lock.json", "scripts/build.mjs"]) {
    if (!existsSync(join(root, path))) continue;
    hash.update(`${path}\n`).update(readFileSync(join(root, path)));
  }
  return hash.digest("hex");
}

const stampPath = join(root, "dist", ".sources");
const readStamp = () => (existsSync(stampPath) ? JSON.parse(readFileSync(stampPath, "utf8")) : {});

/** JavaScript whose source is gone would still be found by the test runner. */
function removeOrphans(paths) {
  const kept = new Set(paths.map((path) => path.replace(/\.ts$/, ".js")));
  for (const folder of sourceFolders) {
    const output = join(root, "dist", folder);
    if (!existsSync(output)) continue;
    for (const name of readdirSync(output, { recursive: true })) {
      const path = join(folder, name);
      if (path.endsWith(".js") && !kept.has(path)) {
        rmSync(join(root, "dist", path));
        rmSync(join(root, "dist", `${path}.map`), { force: true });
      }
    }
  }
}

/** @returns the sentence that names what is missing to build, or null */
export function missingTools() {
  return existsSync(join(root, "node_modules", "typescript")) ? null : "TypeScript is not installed; run `npm ci`";
}

/**
 * @param {{ tell?: (line: string) => void }} options
 * @returns {Promise<boolean>} false when there was nothing to do
 * @throws SetupError when a source does not compile
 */
export function build({ tell = () => {} } = {}) {
  const lock = join(cacheFolder(), `build-${createHash("sha256").update(root).digest("hex").slice(0, 12)}.lock`);
  return withLock(lock, "build", async () => {
    const paths = sources();
    const wanted = digest(paths);
    const bundlePath = join(root, "dist", "workflow-bundle.js");
    if (readStamp().digest === wanted && existsSync(bundlePath)) return false;
    const missing = missingTools();
    if (missing) throw new SetupError(`build: ${missing}`);
    tell(`building dist/ from ${paths.length} TypeScript files`);
    rmSync(stampPath, { force: true });
    mkdirSync(join(root, "dist"), { recursive: true });
    const compiler = join(root, "node_modules", "typescript", "bin", "tsc");
    const compiled = spawnSync(process.execPath, [compiler, "--outDir", "dist"], { cwd: root, encoding: "utf8" });
    if (compiled.status !== 0) {
      throw new SetupError(`build: expected the sources to compile, got:\n${compiled.stdout}${compiled.stderr}`);
    }
    removeOrphans(paths);
    tell("bundling the workflows for Temporal");
    const bundled = spawnSync(process.execPath, [fileURLToPath(import.meta.url), "--bundle-only"], {
      cwd: root,
      encoding: "utf8",
    });
    if (bundled.status !== 0) {
      throw new SetupError(`build: expected the workflows to bundle, got:\n${bundled.stdout}${bundled.stderr}`);
    }
    writeFileSync(stampPath, `${JSON.stringify({ digest: wanted })}\n`);
    return true;
  });
}

async function main() {
  const { values } = parseArgs({ options: { "if-ready": { type: "boolean" }, "bundle-only": { type: "boolean" } } });
  if (values["bundle-only"]) {
    const { bundleWorkflows } = await import(pathToFileURL(join(root, "dist/src/workers/bundle-workflows.js")).href);
    await bundleWorkflows(join(root, "dist", "workflow-bundle.js"));
    return;
  }
  // `prepare` also runs while npm installs without development packages, where there is nothing to build with
  if (values["if-ready"] && (missingTools() || sources().length === 0)) return;
  const started = Date.now();
  const built = await build({ tell: (line) => process.stderr.write(`build: ${line}\n`) });
  process.stderr.write(
    built ? `build: done in ${((Date.now() - started) / 1000).toFixed(1)} s\n` : "build: up to date\n",
  );
}

if (process.argv[1] && realpathSync(process.argv[1]) === realpathSync(fileURLToPath(import.meta.url))) {
  try {
    await main();
  } catch (error) {
    process.stderr.write(`${error instanceof SetupError ? error.message : error.stack}\n`);
    process.exitCode = 1;
  }
}
