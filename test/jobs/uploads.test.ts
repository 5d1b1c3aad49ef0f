import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { jobFolderUri, rootCheck } from "../../src/jobs/roots.ts";
import { largestUpload, uploadImage, uploadsFolder } from "../../src/jobs/uploads.ts";

const folder = mkdtempSync(join(tmpdir(), "blipfleet-uploads-"));
const environment = { BLIPFLEET_JOBS: folder };
after(() => rmSync(folder, { recursive: true }));

test("equal bytes are kept once, other bytes beside them, all where workers may read", async () => {
  const first = await uploadImage(Buffer.from("one"), environment);
  const again = await uploadImage(Buffer.from("one"), environment);
  const other = await uploadImage(Buffer.from("two"), environment);
  assert.equal(first, again);
  assert.notEqual(first, other);
  assert.equal(readdirSync(uploadsFolder(environment)).length, 2);
  assert.equal(readFileSync(fileURLToPath(other), "utf8"), "two");
  const path = await rootCheck([uploadsFolder(environment)]).resolveInside(fileURLToPath(first));
  assert.equal(path, fileURLToPath(first));
});

test("nothing and too much are refused, with both numbers", async () => {
  await assert.rejects(uploadImage(new Uint8Array(0), environment), { name: "StoreError", message: /got 0/ });
  const tooLarge = new Uint8Array(largestUpload + 1);
  await assert.rejects(uploadImage(tooLarge, environment), {
    name: "StoreError",
    message: /16777216 bytes, got 16777217/,
  });
});

test("a jobs' folder that cannot be made is named with its setting", () => {
  const file = join(folder, "a-file");
  writeFileSync(file, "");
  assert.throws(() => uploadsFolder({ BLIPFLEET_JOBS: file }), { name: "StoreError", message: /BLIPFLEET_JOBS/ });
});

test("no job can have the uploads' folder as its own", () => {
  assert.throws(() => jobFolderUri("_uploads", environment), { name: "PathError" });
});
