// npm packages from the lock file, and the command's link, so that `npx --no-install blipfleet` works in a clone.

import { existsSync, lstatSync, readFileSync, readlinkSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { found, run, SetupError, say } from "./steps.mjs";

/** The first package that differs between the lock file and what npm recorded as installed, else null. */
function firstDifference(root) {
  const installedPath = join(root, "node_modules", ".package-lock.json");
  if (!existsSync(installedPath)) return "node_modules";
  const locked = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8")).packages;
  const installed = JSON.parse(readFileSync(installedPath, "utf8")).packages;
  for (const [path, { version, optional }] of Object.entries(locked)) {
    if (path === "") continue;
    const there = existsSync(join(root, path, "package.json")) ? installed[path]?.version : undefined;
    // an optional package of another platform is absent; one that is there must be the right one
    if (there === undefined && optional) continue;
    if (there !== version) return path.replace(/^.*node_modules\//, "");
  }
  return null;
}

/** @throws SetupError */
export async function ensurePackages(root) {
  const difference = firstDifference(root);
  if (difference === null) {
    found("npm packages match the lock file");
    return;
  }
  say(`installing npm packages from package-lock.json (${difference} is missing or of another version)`);
  const npm = process.platform === "win32" ? "npm.cmd" : "npm";
  // No package here needs its install script on a platform with a prebuilt binary, and set-up builds by itself.
  const args = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
  const { status, stderr } = await run(npm, args, { cwd: root });
  if (status !== 0) {
    const why = stderr
      .split("\n")
      .map((line) => line.replace(/^npm error ?/, "").trim())
      .find((line) => line !== "" && !line.startsWith("code "));
    throw new SetupError(
      `npm packages: expected \`npm ci\` to succeed, got status ${status} (${why ?? "no message"}); make the npm registry reachable and run set-up again`,
    );
  }
}

/**
 * Link node_modules/.bin/blipfleet to the launcher of this clone. A "bin" in package.json would not do: npx then installs
 * the clone into its own cache first, which runs `prepare`, takes seconds, and fails when two do it at once.
 */
export function linkCommand(root) {
  const link = join(root, "node_modules", ".bin", "blipfleet");
  if (process.platform === "win32") {
    writeFileSync(`${link}.cmd`, '@node "%~dp0\\..\\..\\bin\\blipfleet.mjs" %*\r\n');
    return;
  }
  const target = "../../bin/blipfleet.mjs";
  const there = lstatSync(link, { throwIfNoEntry: false });
  if (there?.isSymbolicLink() && readlinkSync(link) === target) return;
  rmSync(link, { force: true });
  symlinkSync(target, link);
}
