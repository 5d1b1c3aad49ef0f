// Child process of set-up: let the Temporal SDK download its dev server into the folder given, and print its path.
// Gives up when no byte has arrived after a while, so that a machine without network loses seconds, not minutes.

import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { TestWorkflowEnvironment } from "@temporalio/testing";

const folder = process.argv[2];
/** Seconds; connecting and the first bytes of a file of about 30 MB. */
const firstByteLimit = 25;

const files = () => readdirSync(folder).filter((name) => statSync(join(folder, name)).size > 0);
setTimeout(() => {
  if (files().length > 0) return;
  process.stderr.write(`no byte after ${firstByteLimit} s\n`);
  process.exit(1);
}, firstByteLimit * 1000).unref();

try {
  const server = {
    executable: { type: "cached-download", downloadDir: folder, ttl: "36500 days" },
    log: { format: "json", level: "never" },
  };
  const environment = await TestWorkflowEnvironment.createLocal({ server });
  await environment.teardown();
  const newest = files()
    .map((name) => join(folder, name))
    .sort((a, b) => statSync(b).mtimeMs - statSync(a).mtimeMs)[0];
  process.stdout.write(`${newest}\n`);
  process.exit(0);
} catch (error) {
  process.stderr.write(`${error.message.split("\n")[0]}\n`);
  process.exit(1);
}
