// The workflows as one file that a worker loads without a compiler or a bundler.

import { existsSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { bundleWorkflowCode, DefaultLogger } from "@temporalio/worker";

/** The bundle beside this build: <build folder>/workflow-bundle.js. */
export const bundlePath = fileURLToPath(new URL("../../workflow-bundle.js", import.meta.url));

/** No bundle where one should be. */
export class BundleError extends Error {
  override readonly name = "BundleError";
}

/** Bundle the compiled workflows of this build. Takes a few seconds; called when the project is built. */
export async function bundleWorkflows(target: string = bundlePath): Promise<void> {
  const { code } = await bundleWorkflowCode({
    workflowsPath: fileURLToPath(new URL("../workflows/registered.js", import.meta.url)),
    logger: new DefaultLogger("WARN"),
  });
  writeFileSync(target, code);
}

/**
 * The path of this build's bundle.
 * @throws BundleError when it is not there
 */
export function findBundle(path: string = bundlePath): string {
  if (existsSync(path)) return path;
  throw new BundleError(`worker: expected the bundled workflows at ${path}, got no file; run "npm run build"`);
}
