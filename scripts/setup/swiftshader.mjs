// SwiftShader: a Vulkan driver without an installation, taken out of an npm package that carries a headless browser.

import {
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
import { brotliDecompressSync } from "node:zlib";
import { lastLine, run, SetupError, say } from "./steps.mjs";

/** The version whose archive is known to hold driver, driver file and Vulkan loader (x86-64). */
const npmPackage = "@sparticuz/chromium@147.0.0";
const wanted = ["libvk_swiftshader.so", "vk_swiftshader_icd.json", "libvulkan.so.1"];

/**
 * Folder with the driver, its driver file and a Vulkan loader; fetched if it is not there.
 * @throws SetupError
 */
export async function ensureSwiftShader(cache) {
  const folder = join(cache, "swiftshader");
  if (wanted.every((name) => existsSync(join(folder, name)))) return folder;
  if (process.platform !== "linux" || process.arch !== "x64") {
    throw new SetupError(`SwiftShader: expected Linux on x86-64, got ${process.platform} on ${process.arch}`);
  }
  say(`fetching SwiftShader, a software Vulkan driver, out of the npm package ${npmPackage} (65 MB, 7 MB are kept)`);
  mkdirSync(cache, { recursive: true });
  const work = mkdtempSync(join(cache, "swiftshader-"));
  try {
    const packed = await run("npm", ["pack", npmPackage, "--silent", "--pack-destination", work], { seconds: 300 });
    const archive = readdirSync(work).find((name) => name.endsWith(".tgz"));
    if (packed.status !== 0 || !archive) {
      throw new SetupError(
        `SwiftShader: expected \`npm pack ${npmPackage}\` to succeed, got ${lastLine(packed.stderr)}; make the npm registry reachable`,
      );
    }
    await unpack(["-xzf", join(work, archive), "-C", work, "package/bin/swiftshader.tar.br"]);
    const inner = join(work, "swiftshader.tar");
    writeFileSync(inner, brotliDecompressSync(readFileSync(join(work, "package/bin/swiftshader.tar.br"))));
    const ready = join(work, "ready");
    mkdirSync(ready);
    await unpack(["-xf", inner, "-C", ready, "--no-same-owner", ...wanted]);
    rmSync(folder, { recursive: true, force: true });
    renameSync(ready, folder);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  return folder;
}

async function unpack(args) {
  const { status, stderr } = await run("tar", args);
  if (status !== 0) throw new SetupError(`SwiftShader: expected tar to unpack it, got ${lastLine(stderr)}`);
}
