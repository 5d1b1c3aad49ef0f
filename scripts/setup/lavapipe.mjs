// lavapipe, Mesa's Vulkan driver for CPUs: found, or installed with apt where that needs no questions asked.

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { lastLine, rootPrefix, run, SetupError, say } from "./steps.mjs";

/** Where Vulkan loaders look for driver files on Linux. */
const driverFolders = [
  "/etc/vulkan/icd.d",
  "/usr/local/etc/vulkan/icd.d",
  "/usr/local/share/vulkan/icd.d",
  "/usr/share/vulkan/icd.d",
];

/** Every Vulkan driver file of this machine, full paths. */
export function driverFiles() {
  return driverFolders
    .filter((folder) => existsSync(folder))
    .flatMap((folder) => readdirSync(folder).map((name) => join(folder, name)))
    .filter((path) => path.endsWith(".json"))
    .sort();
}

/** lavapipe's driver file, else null. Its name carries the architecture in some distributions. */
export function lavapipeDriverFile() {
  return driverFiles().find((path) => /\/lvp_icd(\.[\w-]+)?\.json$/.test(path)) ?? null;
}

const packages = ["mesa-vulkan-drivers", "libvulkan1"];

/** Mesa's major version that apt would install, 0 when it knows none. */
async function candidate(suite) {
  const args = ["-o", "APT::Cache::Quiet=true", "policy", "mesa-vulkan-drivers"];
  const { stdout } = await run("apt-cache", suite ? ["-t", suite, ...args] : args);
  return Number(/Candidate: (\d+)/.exec(stdout)?.[1] ?? 0);
}

/** Mesa before this one gives Dawn no adapter (Debian 12's own is 22.3). */
const oldestMesa = 23;

/**
 * Install lavapipe through apt.
 * @throws SetupError saying what to install by hand.
 */
export async function installLavapipe() {
  const byHand = `install Mesa's lavapipe (${packages.join(" and ")} on Debian and Ubuntu, mesa-vulkan-drivers on Fedora, vulkan-swrast on Arch) of Mesa ${oldestMesa} or newer`;
  const release = existsSync("/etc/os-release") ? readFileSync("/etc/os-release", "utf8") : "";
  if (!existsSync("/usr/bin/apt-get")) {
    throw new SetupError(`lavapipe: expected apt to install it with, found none; ${byHand}`);
  }
  const root = await rootPrefix();
  if (root === null)
    throw new SetupError(`lavapipe: expected root or password-less sudo to install it, got neither; ${byHand}`);
  const apt = (...args) =>
    run([...root, "apt-get"][0], [...root, "apt-get", ...args].slice(1), {
      env: { DEBIAN_FRONTEND: "noninteractive" },
      seconds: 600,
    });
  say("refreshing apt's lists, to install Mesa's software Vulkan driver lavapipe");
  await apt("update", "-q");
  let suite = null;
  const codename = /^VERSION_CODENAME=(\w+)/m.exec(release)?.[1];
  if ((await candidate(null)) < oldestMesa && /^ID=debian$/m.test(release) && codename) {
    suite = `${codename}-backports`;
    if ((await candidate(suite)) < oldestMesa) await addBackports(root, codename, suite, byHand, apt);
  }
  say(`installing ${packages.join(" and ")} with apt${suite ? ` from ${suite}` : ""}`);
  const installed = await apt(
    "install",
    "-y",
    "-q",
    "--no-install-recommends",
    ...(suite ? ["-t", suite] : []),
    ...packages,
  );
  if (installed.status !== 0) {
    throw new SetupError(`lavapipe: expected apt to install it, got ${lastLine(installed.stderr)}; ${byHand}`);
  }
}

/** Add the backports suite of the mirror that this machine already uses, in a sources file of its own. */
async function addBackports(root, codename, suite, byHand, apt) {
  const path = "/etc/apt/sources.list.d/blipfleet-backports.list";
  const { stdout } = await run("apt-get", [
    "indextargets",
    "--format",
    "$(REPO_URI) $(RELEASE) $(COMPONENT)",
    "Created-By: Packages",
  ]);
  const known = stdout.split("\n").map((line) => line.split(" "));
  const mirror = known.find(([, name, component]) => name === codename && component === "main")?.[0];
  if (!mirror) throw new SetupError(`lavapipe: expected apt to know a mirror of ${codename}, found none; ${byHand}`);
  say(`adding ${suite} of the mirror in use to apt (${path}): ${codename}'s own Mesa is too old`);
  const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
  const signed = existsSync(keyring) ? `[signed-by=${keyring}] ` : "";
  const command = [...root, "tee", path];
  const written = await run(command[0], command.slice(1), {
    input: Buffer.from(`deb ${signed}${mirror} ${suite} main\n`),
  });
  if (written.status !== 0)
    throw new SetupError(`lavapipe: expected to write ${path}, got ${lastLine(written.stderr)}`);
  await apt("update", "-q");
}
