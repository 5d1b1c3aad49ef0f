import assert from "node:assert/strict";
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { PathError } from "../../src/jobs/errors.ts";
import {
  allowedRoots,
  cacheFolder,
  jobFolderUri,
  jobsFolder,
  resolveInsideRoots,
  rootCheck,
  toPath,
} from "../../src/jobs/roots.ts";
import { temporaryFolder } from "./temporary-folder.ts";

const root = temporaryFolder();
const inside = join(root, "inside");
const outside = join(root, "inside-not");
mkdirSync(join(inside, "sub"), { recursive: true });
mkdirSync(outside);
writeFileSync(join(inside, "a.jpg"), "");
writeFileSync(join(outside, "secret.jpg"), "");
symlinkSync(join(outside, "secret.jpg"), join(inside, "link-out.jpg"));
symlinkSync(join(inside, "a.jpg"), join(inside, "link-in.jpg"));
symlinkSync(outside, join(inside, "folder-out"));
symlinkSync(inside, join(root, "alias"));
symlinkSync("loop.jpg", join(inside, "loop.jpg"));
symlinkSync(join(outside, "not-yet.jpg"), join(inside, "dangling.jpg"));

test("folders follow the environment", () => {
  assert.equal(cacheFolder({ BLIPFLEET_CACHE: "/c", XDG_CACHE_HOME: "/x" }), "/c");
  assert.equal(cacheFolder({ XDG_CACHE_HOME: "/x" }), "/x/blipfleet");
  assert.equal(cacheFolder({}), join(homedir(), ".cache", "blipfleet"));
  assert.equal(jobsFolder({ BLIPFLEET_CACHE: "/c" }), "/c/jobs");
  assert.equal(jobsFolder({ BLIPFLEET_CACHE: "/c", BLIPFLEET_JOBS: "/j" }), "/j");
  assert.equal(jobFolderUri("nightly-1", { BLIPFLEET_JOBS: "/a b" }), "file:///a%20b/nightly-1");
  for (const id of ["", "..", ".", "a/b", "a b", "-x", "x".repeat(129)]) {
    assert.throws(() => jobFolderUri(id, {}), PathError, id);
  }
});

test("roots are absolute and exist, and links in them are resolved", () => {
  assert.deepEqual(allowedRoots({}), []);
  assert.deepEqual(allowedRoots({ BLIPFLEET_ROOTS: `${inside}:${join(root, "alias")}` }), [inside, inside]);
  assert.throws(() => allowedRoots({ BLIPFLEET_ROOTS: "images" }), /BLIPFLEET_ROOTS: expected absolute folders/);
  assert.throws(() => allowedRoots({ BLIPFLEET_ROOTS: join(root, "none") }), /expected existing folders/);
});

test("what lies below a root is allowed, by any name", async () => {
  const { resolveInside } = rootCheck([inside]);
  assert.equal(await resolveInside(inside), inside);
  assert.equal(await resolveInside(join(inside, "a.jpg")), join(inside, "a.jpg"));
  assert.equal(await resolveInside(join(inside, "link-in.jpg")), join(inside, "a.jpg"));
  assert.equal(await resolveInside(join(root, "alias", "a.jpg")), join(inside, "a.jpg"));
  assert.equal(await resolveInside(join(inside, "sub", "..", "a.jpg")), join(inside, "a.jpg"));
});

test("a file that does not exist is judged by its nearest folder", async () => {
  const { resolveInside } = rootCheck([inside]);
  assert.equal(await resolveInside(join(inside, "none.jpg")), join(inside, "none.jpg"));
  assert.equal(await resolveInside(join(inside, "no", "such", "x.jpg")), join(inside, "no", "such", "x.jpg"));
  await assert.rejects(resolveInside(join(inside, "folder-out", "none.jpg")), PathError);
  await assert.rejects(resolveInside(join(inside, "no", "..", "..", "inside-not", "x.jpg")), PathError);
});

for (const path of [
  "inside-not/secret.jpg",
  "inside/link-out.jpg",
  "inside/folder-out/secret.jpg",
  "inside/../inside-not/secret.jpg",
  ".",
  "inside/dangling.jpg",
  "inside/loop.jpg",
]) {
  test(`${path} is refused, and the message names the setting or the fault`, async () => {
    await assert.rejects(rootCheck([inside]).resolveInside(join(root, path)), (error: Error) => {
      assert.ok(error instanceof PathError);
      assert.match(error.message, /expected one below BLIPFLEET_ROOTS \(.*inside\), got|can be followed/);
      return true;
    });
  });
}

test("a root of / allows all; without roots nothing is allowed", async () => {
  assert.equal(await rootCheck(["/"]).resolveInside(join(outside, "secret.jpg")), join(outside, "secret.jpg"));
  await assert.rejects(resolveInsideRoots(join(inside, "a.jpg"), {}), /BLIPFLEET_ROOTS to name the folders.*got none/);
  const environment = { BLIPFLEET_ROOTS: inside };
  assert.equal(await resolveInsideRoots(join(inside, "a.jpg"), environment), join(inside, "a.jpg"));
});

test("a path is plain, relative or a file: URI; other schemes come later", () => {
  assert.equal(toPath("x/a.jpg", "/data"), "/data/x/a.jpg");
  assert.equal(toPath("../a.jpg", "/data/x"), "/data/a.jpg");
  assert.equal(toPath("/abs/a.jpg", "/data"), "/abs/a.jpg");
  assert.equal(toPath(pathToFileURL("/a b/ü#?.jpg").href, "/data"), "/a b/ü#?.jpg");
  assert.equal(toPath("a:b.jpg", "/data"), "/data/a:b.jpg");
  for (const uri of ["s3://b/a.jpg", "nats://x", "https://h/a.jpg", "HTTP://h/a", "data:image/png;base64,AA"]) {
    assert.throws(() => toPath(uri, "/data"), /comes later/, uri);
  }
  assert.throws(() => toPath("file://host/x", "/data"), PathError);
  assert.throws(() => toPath("", "/data"), PathError);
  assert.throws(() => toPath("a\0.jpg", "/data"), PathError);
});
