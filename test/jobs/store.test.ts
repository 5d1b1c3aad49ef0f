import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { PathError, StoreError } from "../../src/jobs/errors.ts";
import { folderStore, openStore, sha256 } from "../../src/jobs/store.ts";
import { temporaryFolder } from "./temporary-folder.ts";

const root = temporaryFolder();

test("what is committed is read back under its digest", async () => {
  const store = openStore(pathToFileURL(join(root, "new", "job 1")).href);
  const committed = await store.commit("chunks/000001/generate.jsonl", Buffer.from("héllo\n"));
  assert.deepEqual(committed, { name: "chunks/000001/generate.jsonl", sha256: sha256(Buffer.from("héllo\n")) });
  assert.equal((await store.read(committed.name, committed.sha256)).toString(), "héllo\n");
  assert.equal(readFileSync(join(root, "new", "job 1", "chunks/000001/generate.jsonl"), "utf8"), "héllo\n");
});

test("a store is left without a trace when nothing was kept in it, and not otherwise", async () => {
  const store = folderStore(join(root, "left"));
  await store.probe();
  assert.ok(existsSync(join(root, "left")));
  await store.leave();
  assert.ok(!existsSync(join(root, "left")));
  await store.leave();
  const { name, sha256: digest } = await store.commit("kept", Buffer.from("kept"));
  await store.leave();
  assert.equal((await store.read(name, digest)).toString(), "kept");
});

test("the first writer wins; the second learns the winner's digest and leaves nothing behind", async () => {
  const store = folderStore(join(root, "first"));
  const first = await store.commit("a", Buffer.from("one"));
  const second = await store.commit("a", Buffer.from("two"));
  assert.deepEqual(second, first);
  assert.equal((await store.read("a", first.sha256)).toString(), "one");
  assert.deepEqual(readdirSync(join(root, "first")), ["a"]);
});

test("of many concurrent writers exactly one wins and all agree", async () => {
  const store = folderStore(join(root, "race"));
  const all = await Promise.all(Array.from({ length: 40 }, (_, i) => store.commit("deep/er/x", Buffer.alloc(5000, i))));
  assert.equal(new Set(all.map(({ sha256 }) => sha256)).size, 1);
  const winner = await store.read("deep/er/x", all[0]?.sha256 ?? "");
  assert.ok(
    winner.every((byte) => byte === winner[0]),
    "the winner is one writer's bytes, whole",
  );
  assert.deepEqual(await store.list(), ["deep/er/x"]);
});

test("writers killed in the middle leave nothing that counts, and the next writer can commit", async () => {
  const folder = join(root, "killed");
  const script = `
    import { folderStore } from ${JSON.stringify(new URL("../../src/jobs/store.js", import.meta.url).href)};
    const store = folderStore(${JSON.stringify(folder)});
    process.stdout.write("ready\\n");
    for (let i = 0; ; i += 1) await store.commit("object-" + i, Buffer.alloc(3_000_000, i));
  `;
  for (let round = 0; round < 3; round += 1) {
    const child = spawn(process.execPath, ["--input-type=module", "-e", script], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    await once(child.stdout, "data");
    await new Promise((resolve) => setTimeout(resolve, 60 + 20 * round));
    child.kill("SIGKILL");
    await once(child, "exit");
    const store = folderStore(folder);
    const names = await store.list();
    assert.ok(
      names.every((name) => /^object-\d+$/.test(name)),
      `expected whole objects only, got ${names.join(", ")}`,
    );
    for (const name of names) {
      const bytes = readFileSync(join(folder, name));
      assert.equal(bytes.length, 3_000_000, `${name} is whole`);
      assert.ok(bytes.every((byte) => byte === Number(name.slice(7)) % 256));
    }
    const next = `object-${names.length}`;
    const again = await store.commit(next, Buffer.from("other"));
    assert.equal((await store.read(next, again.sha256)).toString(), "other");
    const { rmSync } = await import("node:fs");
    rmSync(folder, { recursive: true });
  }
});

test("a changed or missing object is an error that names the object and both digests", async () => {
  const store = folderStore(join(root, "changed"));
  const committed = await store.commit("x", Buffer.from("right"));
  writeFileSync(join(root, "changed", "x"), "wrong");
  await assert.rejects(store.read("x", committed.sha256), (error: Error) => {
    assert.ok(error instanceof StoreError);
    assert.ok(error.message.includes(committed.sha256) && error.message.includes(sha256(Buffer.from("wrong"))));
    return true;
  });
  await assert.rejects(store.read("y", committed.sha256), /expected object y .*got ENOENT/);
});

test("list is sorted, takes a prefix, and leaves half-written objects out; discard removes a folder", async () => {
  const store = folderStore(join(root, "list"));
  assert.deepEqual(await store.list(), []);
  for (const name of ["b/2", "b/10", "a", "B", "b-1", "c"]) await store.commit(name, Buffer.from(name));
  writeFileSync(join(root, "list", "c.0123456789abcdef.tmp"), "half");
  assert.deepEqual(await store.list(), ["B", "a", "b-1", "b/10", "b/2", "c"]);
  assert.deepEqual(await store.list("b/"), ["b/10", "b/2"]);
  await store.discard("b");
  assert.deepEqual(await store.list(), ["B", "a", "b-1", "c"]);
  await store.discard("never-there");
});

test("names cannot leave the folder", async () => {
  const store = folderStore(join(root, "names"));
  for (const name of ["../x", "a/../../x", "/x", "", "a//b", ".", "a/.hidden", "a b", "x.0123456789abcdef.tmp", "é"]) {
    await assert.rejects(store.commit(name, Buffer.from("x")), StoreError, name);
    await assert.rejects(store.read(name, ""), StoreError, name);
    await assert.rejects(store.discard(name), StoreError, name);
  }
  assert.equal(existsSync(join(root, "x")), false);
});

test("probe leaves nothing and passes on a good folder", async () => {
  const store = folderStore(join(root, "probe"));
  await store.probe();
  assert.deepEqual(readdirSync(join(root, "probe")), []);
});

test("probe fails where nothing can be written", async () => {
  mkdirSync(join(root, "blocked"));
  writeFileSync(join(root, "blocked", "file"), "");
  const below = folderStore(join(root, "blocked", "file", "job"));
  await assert.rejects(below.probe(), (error: Error) => {
    assert.ok(error instanceof StoreError);
    assert.match(error.message, /expected to commit probe-.*got ENOTDIR/);
    return true;
  });
  if (process.getuid?.() !== 0) {
    mkdirSync(join(root, "read-only"));
    chmodSync(join(root, "read-only"), 0o500);
    await assert.rejects(folderStore(join(root, "read-only")).probe(), /EACCES.*BLIPFLEET_JOBS/);
  }
});

test("other schemes come later, in one sentence", () => {
  for (const uri of ["s3://bucket/job", "nats://host/bucket"]) {
    assert.throws(
      () => openStore(uri),
      (error: Error) => {
        assert.ok(error instanceof PathError);
        assert.match(error.message, /expected a file: URI, got ".*"; (s3|nats): comes later/);
        return true;
      },
    );
  }
  assert.throws(() => openStore("/plain/path"), /write it as file:/);
});
