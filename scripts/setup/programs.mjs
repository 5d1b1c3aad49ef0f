// The two servers: nats-server and the Temporal CLI, from PATH, else fetched or built into the cache folder.

import { existsSync, mkdirSync, rmSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { findProgram, found, lastLine, rootPrefix, run, SetupError, say } from "./steps.mjs";

/** Go module versions that are known to build with `go install`; later Temporal CLIs carry a replace directive. */
const natsModule = "github.com/nats-io/nats-server/v2@v2.15.2";
const temporalModule = "github.com/temporalio/cli/cmd/temporal@v1.5.1";
/** The prompt store reads messages by subject (`allow_direct`), which came with this version. */
const oldestNats = [2, 9];

async function version(path) {
  const { status, stdout } = await run(path, ["--version"], { seconds: 20 });
  return status === 0 ? (/v?(\d+\.\d+\.\d+[\w.+-]*)/.exec(stdout)?.[1] ?? null) : null;
}

const hidden = (line) => line.replace(/https?:\/\/\S+/g, "(address)");

/** Sources and objects that Go needed to build with: gigabytes, and of no use afterwards. */
export function removeGoCaches(cache) {
  rmSync(join(cache, "go"), { recursive: true, force: true });
}

/** Build a Go program into <cache>/bin. What two builds share is kept until removeGoCaches(). */
async function goInstall(cache, module, name) {
  const go = findProgram("go", ["/usr/local/go/bin", join(homedir(), "go", "bin")]);
  if (!go) throw new SetupError(`expected Go to build ${name} with, found none`);
  const work = join(cache, "go");
  mkdirSync(join(cache, "bin"), { recursive: true });
  const env = {
    GOBIN: join(cache, "bin"),
    GOMODCACHE: join(work, "mod"),
    GOCACHE: join(work, "build"),
    GOFLAGS: "-modcacherw",
    CGO_ENABLED: "0",
  };
  const { status, stderr } = await run(go, ["install", module], { env, seconds: 1500 });
  if (status !== 0) {
    throw new SetupError(`expected \`go install ${module}\` to succeed, got ${hidden(lastLine(stderr))}`);
  }
  return join(cache, "bin", process.platform === "win32" ? `${name}.exe` : name);
}

async function installNatsPackage() {
  const root = existsSync("/usr/bin/apt-get") ? await rootPrefix() : null;
  if (root === null)
    throw new SetupError("expected apt and root (or password-less sudo) to install nats-server, got neither");
  say("installing the system's nats-server package with apt");
  const apt = (...args) => {
    const command = [...root, "apt-get", ...args];
    return run(command[0], command.slice(1), { env: { DEBIAN_FRONTEND: "noninteractive" } });
  };
  await apt("update", "-q");
  const { status, stderr } = await apt("install", "-y", "-q", "--no-install-recommends", "nats-server");
  if (status !== 0) throw new SetupError(`expected apt to install nats-server, got ${lastLine(stderr)}`);
  // the package starts a service of its own; every server here is started with its own configuration
  const stop = [...root, "systemctl", "disable", "--now", "nats-server"];
  await run(stop[0], stop.slice(1), { seconds: 20 });
  const path = findProgram("nats-server", ["/usr/sbin", "/usr/bin"]);
  if (!path) throw new SetupError("expected nats-server after its installation, found none");
  return path;
}

/** Try the ways in order; the first that gives a program which tells its version wins. */
async function firstWay(name, ways, advice) {
  const reasons = [];
  for (const way of ways) {
    try {
      const path = await way();
      const told = path ? await version(path) : null;
      if (path && told) return { path, version: told };
      if (path) reasons.push(`expected ${path} --version to answer, got nothing`);
    } catch (error) {
      if (!(error instanceof SetupError)) throw error;
      reasons.push(error.message);
    }
  }
  throw new SetupError(`${name}: ${reasons.join("; ")}; ${advice}`);
}

/** @returns {Promise<{ path: string, version: string }>} @throws SetupError saying what to install */
export async function ensureNatsServer(cache) {
  const nats = await firstWay(
    "nats-server",
    [
      async () => {
        const path = findProgram("nats-server", [join(cache, "bin")]);
        const [major = 0, minor = 0] = path ? ((await version(path)) ?? "").split(".").map(Number) : [];
        if (!path || major > oldestNats[0] || (major === oldestNats[0] && minor >= oldestNats[1])) return path;
        throw new SetupError(`expected version ${oldestNats.join(".")} or newer, got ${major}.${minor} at ${path}`);
      },
      () => {
        say(`building nats-server with Go (${natsModule}; about half a minute, once)`);
        return goInstall(cache, natsModule, "nats-server");
      },
      installNatsPackage,
    ],
    "install nats-server 2.9 or newer and put it on PATH",
  );
  found(`nats-server ${nats.version} at ${nats.path}`);
  return nats;
}

/** @returns {Promise<{ path: string, version: string }>} @throws SetupError saying what to install */
export async function ensureTemporal(cache) {
  const temporal = await firstWay(
    "temporal",
    [
      () => findProgram("temporal", [join(cache, "bin")]),
      async () => {
        say("fetching the Temporal CLI with the Temporal SDK's own download");
        const script = fileURLToPath(new URL("./fetch-temporal.mjs", import.meta.url));
        const folder = join(cache, "temporal");
        mkdirSync(folder, { recursive: true });
        const { status, stdout, stderr } = await run(process.execPath, [script, folder], { seconds: 300 });
        if (status !== 0) throw new SetupError(`expected the SDK to download it, got ${hidden(lastLine(stderr))}`);
        return lastLine(stdout);
      },
      () => {
        say(`building the Temporal CLI with Go (${temporalModule}; 2 to 3 minutes on two cores, once)`);
        return goInstall(cache, temporalModule, "temporal");
      },
    ],
    "install the Temporal CLI and put it on PATH",
  );
  found(`Temporal CLI ${temporal.version} at ${temporal.path}`);
  return temporal;
}
