// lavapipe of Mesa 26.1 or newer, the one software driver that offers subgroup matrices: Debian 13's packages of it, with
// the C library that they need, unpacked into the cache folder. Nothing is installed, no root is needed; Node is started
// through that folder's own dynamic loader. Only tests use it.

import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { lastLine, run, SetupError, say, withLock } from "./steps.mjs";

const release = "trixie";
/** The first packages have to come from the backports, which apt takes only when told so. */
const packages = [`mesa-vulkan-drivers/${release}-backports`, "libvulkan1", "libc6", "libstdc++6", "libgcc-s1"];
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
/** Of the 300 MB unpacked, half are drivers of GPUs. */
const unused = /^(libvulkan_(?!lvp)|libVkLayer|gconv$)/;

/** Where the driver's pieces are; `program` is Node over its own C library, to be started like Node itself. */
function places(cache) {
  const folder = join(cache, "lavapipe-26");
  const libraries = join(folder, "lib");
  return { folder, libraries, driverFile: join(folder, "lvp_icd.json"), program: join(folder, "node") };
}

/**
 * The driver, fetched if it is not there.
 * @returns {Promise<{ program: string, env: Record<string, string> }>}
 * @throws SetupError saying why this machine cannot have it
 */
export async function ensureLavapipe26(cache) {
  const { folder, libraries, driverFile, program } = places(cache);
  if (!existsSync(driverFile)) {
    await withLock(join(cache, "lavapipe-26.lock"), "fetching of lavapipe 26", async () => {
      if (!existsSync(driverFile)) await fetchInto(cache, folder);
    });
  }
  startScript(program, libraries);
  return { program, env: { VK_DRIVER_FILES: driverFile } };
}

async function fetchInto(cache, folder) {
  if (process.platform !== "linux" || process.arch !== "x64") {
    throw new SetupError(`lavapipe 26: expected Linux on x86-64, got ${process.platform} on ${process.arch}`);
  }
  for (const needed of ["/usr/bin/apt-get", "/usr/bin/dpkg-deb", keyring]) {
    if (!existsSync(needed))
      throw new SetupError(`lavapipe 26: expected Debian's apt to fetch it with, found no ${needed}`);
  }
  say("fetching lavapipe 26, a driver with subgroup matrices, out of Debian 13's packages (75 MB, 180 MB are kept)");
  mkdirSync(cache, { recursive: true });
  const work = mkdtempSync(join(cache, "lavapipe-26-"));
  try {
    const archives = await download(work, await mirror());
    const root = join(work, "root");
    mkdirSync(root);
    for (const archive of archives) await step("dpkg-deb", ["-x", archive, root]);
    const ready = join(work, "ready");
    const libraries = join(ready, "lib");
    mkdirSync(libraries, { recursive: true });
    const unpacked = join(root, "usr", "lib", "x86_64-linux-gnu");
    for (const name of readdirSync(unpacked)) {
      if (!unused.test(name))
        cpSync(join(unpacked, name), join(libraries, name), { recursive: true, verbatimSymlinks: true });
    }
    const driver = JSON.parse(readFileSync(join(root, "usr", "share", "vulkan", "icd.d", "lvp_icd.json"), "utf8"));
    // Its library is found by name, in the folder that the loader is given.
    writeFileSync(join(ready, "lvp_icd.json"), JSON.stringify(driver));
    rmSync(folder, { recursive: true, force: true });
    renameSync(ready, folder);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** The mirror of Debian that this machine's apt uses. */
async function mirror() {
  const format = "$(REPO_URI) $(ORIGIN) $(COMPONENT) $(RELEASE)";
  const { stdout } = await run("apt-get", ["indextargets", "--format", format, "Created-By: Packages"]);
  const targets = stdout.split("\n").map((line) => line.split(" "));
  const own = targets.find(
    ([, origin, component, name]) => origin === "Debian" && component === "main" && !name?.includes("-"),
  );
  if (!own)
    throw new SetupError(
      "lavapipe 26: expected apt to know a mirror of Debian, found none; it needs `apt-get update` once",
    );
  return own[0];
}

/** Packages and all that they depend on, into a folder with an apt of its own: nothing counts as installed. */
async function download(work, uri) {
  const apt = join(work, "apt");
  for (const name of ["state/lists/partial", "cache/archives/partial", "etc/preferences.d"]) {
    mkdirSync(join(apt, name), { recursive: true });
  }
  writeFileSync(join(apt, "state", "status"), "");
  const suites = [release, `${release}-backports`];
  const sources = suites.map((suite) => `deb [arch=amd64 signed-by=${keyring}] ${uri} ${suite} main\n`);
  writeFileSync(join(apt, "etc", "sources.list"), sources.join(""));
  const settings = {
    "Dir::State": join(apt, "state"),
    "Dir::State::status": join(apt, "state", "status"),
    "Dir::Cache": join(apt, "cache"),
    "Dir::Etc": join(apt, "etc"),
    "APT::Architecture": "amd64",
    "APT::Install-Recommends": "false",
    "APT::Sandbox::User": "",
    "Acquire::Languages": "none",
  };
  const path = join(apt, "apt.conf");
  writeFileSync(
    path,
    Object.entries(settings)
      .map(([name, value]) => `${name} "${value}";\n`)
      .join(""),
  );
  const env = { APT_CONFIG: path, DEBIAN_FRONTEND: "noninteractive" };
  await step("apt-get", ["update", "-q"], env);
  await step("apt-get", ["install", "-y", "-q", "--download-only", ...packages], env);
  const archives = join(apt, "cache", "archives");
  return readdirSync(archives)
    .filter((name) => name.endsWith(".deb"))
    .map((name) => join(archives, name));
}

async function step(command, args, env = {}) {
  const { status, stderr } = await run(command, args, { env, seconds: 300 });
  if (status === 0) return;
  throw new SetupError(`lavapipe 26: expected \`${command} ${args[0]}\` to succeed, got ${lastLine(stderr)}`);
}

/**
 * Node through the folder's own loader, which Node would take for its own executable: what starts `process.execPath` again
 * (node:test, tests of commands) must come by the same way.
 */
function startScript(program, libraries) {
  const own = `${program}-path.cjs`;
  writeIfOther(own, `process.execPath = ${JSON.stringify(program)};\n`);
  const quoted = [
    join(libraries, "ld-linux-x86-64.so.2"),
    "--library-path",
    libraries,
    process.execPath,
    "--require",
    own,
  ]
    .map((part) => `'${part.replaceAll("'", "'\\''")}'`)
    .join(" ");
  writeIfOther(program, `#!/bin/sh\nexec ${quoted} "$@"\n`);
}

/** In one stroke: other processes may be starting it. */
function writeIfOther(path, text) {
  if (existsSync(path) && readFileSync(path, "utf8") === text) return;
  const made = `${path}.${process.pid}`;
  writeFileSync(made, text, { mode: 0o755 });
  renameSync(made, path);
}
