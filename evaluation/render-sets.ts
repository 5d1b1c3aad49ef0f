// The sets, rendered by training/render_sets.py in a small Python environment of the cache folder. Both are made once.

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { EvaluationError } from "./errors.ts";

/** What Python's rendering needs of training/requirements.txt. */
const needed = /^(?:numpy|pillow)==\S+$/;

/** The oldest Python that the pinned numpy runs on. */
const oldestPython = [3, 11];

/** Where Debian puts the font that the scenes are drawn with. */
const debianFont = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf";

export interface RenderOptions {
  /** Everything is kept below it. */
  readonly cacheFolder: string;
  /** The folder of the scripts and their requirements. */
  readonly training: string;
  readonly sets: readonly string[];
  /** Variables of the programs that are started. */
  readonly environment: NodeJS.ProcessEnv;
  readonly tell: (line: string) => void;
}

/**
 * Make sure that the sets are there and up to date.
 * @returns the folder that holds them
 * @throws EvaluationError naming what to install
 */
export async function renderedSets(options: RenderOptions): Promise<string> {
  const { cacheFolder, training, sets, environment, tell } = options;
  const font = environment.BLIPFLEET_EMOJI_FONT ?? debianFont;
  if (!existsSync(font)) {
    throw new EvaluationError(
      `${font}: expected the font that the scenes are drawn with, got no such file; install Debian's package ` +
        "fonts-noto-color-emoji, or name the font's file in BLIPFLEET_EMOJI_FONT",
    );
  }
  const python = await pythonEnvironment(options);
  const out = join(cacheFolder, "evaluation", "sets");
  const args = [join(training, "render_sets.py"), "--out", out, ...sets.flatMap((name) => ["--set", name])];
  const { status, lastLine } = await run(python, args, { ...environment, BLIPFLEET_EMOJI_FONT: font }, tell);
  if (status !== 0) throw new EvaluationError(lastLine);
  return out;
}

/** @returns the python of a virtual environment that has the pinned packages */
async function pythonEnvironment({ cacheFolder, training, environment, tell }: RenderOptions): Promise<string> {
  const requirements = (await readFile(join(training, "requirements.txt"), "utf8"))
    .split("\n")
    .filter((line) => needed.test(line));
  const folder = join(cacheFolder, "evaluation", "python");
  const python = join(folder, "bin", "python");
  const stamp = join(folder, "installed.txt");
  if ((await readFile(stamp, "utf8").catch(() => "")) === requirements.join("\n")) return python;
  const base = await run("python3", ["-c", "import sys; print(*sys.version_info[:2], file=sys.stderr)"], environment);
  const [major = 0, minor = 0] = base.lastLine.split(" ").map(Number);
  const oldest = oldestPython.join(".");
  if (base.status !== 0 || major < 3 || (major === 3 && minor < (oldestPython[1] ?? 0))) {
    const got = base.status === 0 ? `${major}.${minor}` : "none";
    throw new EvaluationError(
      `expected python3 ${oldest} or newer to draw the scenes with, got ${got}; install Debian's packages python3 and python3-venv`,
    );
  }
  tell(`making a Python environment with ${requirements.join(" and ")} in ${folder}`);
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  const made = await run("python3", ["-m", "venv", folder], environment);
  if (made.status !== 0) {
    throw new EvaluationError(
      `expected \`python3 -m venv\` to succeed, got ${made.lastLine}; install Debian's package python3-venv`,
    );
  }
  const install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", ...requirements];
  const installed = await run(python, install, environment);
  if (installed.status !== 0) {
    throw new EvaluationError(
      `expected pip to install ${requirements.join(" and ")}, got ${installed.lastLine}; make a Python package index reachable`,
    );
  }
  await writeFile(stamp, requirements.join("\n"));
  return python;
}

/** Run a program to its end. @param tell gets its lines on stderr, but a failing program's last one is returned only */
function run(
  command: string,
  args: readonly string[],
  environment: NodeJS.ProcessEnv,
  tell: (line: string) => void = () => {},
): Promise<{ readonly status: number; readonly lastLine: string }> {
  return new Promise((resolve) => {
    const child = spawn(command, args, { stdio: ["ignore", "ignore", "pipe"], env: environment });
    let lastLine = "";
    createInterface({ input: child.stderr }).on("line", (line) => {
      if (line.trim() === "") return;
      if (lastLine !== "") tell(lastLine);
      lastLine = line.trim();
    });
    child.on("error", (error) => resolve({ status: -1, lastLine: error.message }));
    child.on("close", (status) => {
      if (status === 0 && lastLine !== "") tell(lastLine);
      resolve({ status: status ?? -1, lastLine: lastLine || `${command} ended with ${status}` });
    });
  });
}
