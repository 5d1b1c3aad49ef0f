// The bytes of an image, and everything that is none: no kind of file may hold or fill the process that reads it.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { ImageError, maxImageBytes } from "../../src/image/image-error.ts";
import { PathError } from "../../src/jobs/errors.ts";
import { rootCheck } from "../../src/jobs/roots.ts";
import { readImage } from "../../src/workers/activities/read-image.ts";
import { temporaryFolder } from "../jobs/temporary-folder.ts";

const folder = temporaryFolder();
const inside = join(folder, "inside");
mkdirSync(join(inside, "folder.jpg"), { recursive: true });
const read = (name: string) => readImage(pathToFileURL(join(inside, name)).href, rootCheck([inside]));

test("a file's bytes", async () => {
  writeFileSync(join(inside, "a.jpg"), "bytes");
  assert.equal((await read("a.jpg")).toString(), "bytes");
});

test("a named pipe that nobody writes to is refused at once, as are a socket, a folder and a device", {
  timeout: 10_000,
}, async () => {
  execFileSync("mkfifo", [join(inside, "pipe.jpg")]);
  const server = createServer().listen(join(inside, "socket.jpg"));
  try {
    for (const name of ["pipe.jpg", "folder.jpg"]) {
      await assert.rejects(
        read(name),
        new ImageError(`image: expected a file at ${join(inside, name)}, got something else`),
      );
    }
    await assert.rejects(read("socket.jpg"), {
      name: "ImageError",
      message: /readable file at .*socket.jpg, got ENXIO/,
    });
    await assert.rejects(readImage("file:///dev/zero", rootCheck(["/dev"])), {
      name: "ImageError",
      message: /got something else/,
    });
  } finally {
    server.close();
  }
});

test("a file that is too large is refused by its size, before it is read", async () => {
  writeFileSync(join(inside, "huge.jpg"), "");
  truncateSync(join(inside, "huge.jpg"), maxImageBytes + 1);
  await assert.rejects(read("huge.jpg"), { name: "ImageError", message: /at most 268435456 bytes, got 268435457 in/ });
});

test("an absolute path is one too; a relative one is refused, for it is relative to nobody's folder", async () => {
  const roots = rootCheck([inside, "/"]);
  writeFileSync(join(inside, "plain.jpg"), "plain");
  assert.equal((await readImage(join(inside, "plain.jpg"), roots)).toString(), "plain");
  for (const uri of ["etc/hostname", "./plain.jpg", `..${inside}/plain.jpg`]) {
    const message = `path: expected a file: URI or an absolute path, got ${JSON.stringify(uri)}`;
    await assert.rejects(readImage(uri, roots), new PathError(message));
  }
  await assert.rejects(readImage("s3://bucket/a.jpg", roots), { name: "PathError", message: /comes later/ });
});

test("what is missing is the image's mistake, what lies outside the path's", async () => {
  await assert.rejects(read("none.jpg"), {
    name: "ImageError",
    message: /none.jpg, got ENOENT; relative paths of a list start at .* --images FOLDER/,
  });
  writeFileSync(join(folder, "secret.jpg"), "secret");
  symlinkSync(join(folder, "secret.jpg"), join(inside, "link.jpg"));
  for (const name of ["link.jpg", "../secret.jpg"]) await assert.rejects(read(name), PathError);
});
