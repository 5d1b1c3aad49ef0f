// The hub's cache and downloads, against a server on this machine that speaks the part of the hub's protocol in use.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdir, readFile, readlink, rm, symlink, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import path from "node:path";
import { after, test } from "node:test";
import { openCheckpoint } from "../../src/weights/checkpoint.ts";
import { CheckpointError, ConfigError, HubError } from "../../src/weights/errors.ts";
import {
  hubCacheFolder,
  isOffline,
  locateCheckpoint,
  parseHubReference,
  type WeightsProgress,
} from "../../src/weights/repository.ts";
import { safetensors, temporaryFolder, writeFolder } from "./checkpoint-files.ts";

const commit = "0123456789abcdef0123456789abcdef01234567";
const folder = await temporaryFolder();
const shard = "model-00001-of-00001.safetensors";
const weights = safetensors({ a: { shape: [5000] } });
const files: Record<string, Buffer> = {
  "config.json": Buffer.from('{"model_type":"x"}'),
  "preprocessor_config.json": Buffer.from("{ }"),
  "tokenizer.json": Buffer.from("{}"),
  "qformer_tokenizer/tokenizer.json": Buffer.from("{  }"),
  "README.md": Buffer.from("not needed"),
  "model.safetensors.index.json": Buffer.from(JSON.stringify({ weight_map: { a: shard } })),
  [shard]: weights,
};

/** What the server does; tests change it. */
interface Behaviour {
  readonly status?: number;
  readonly headers?: Record<string, string>;
  /** Instead of the files. */
  readonly content?: Record<string, Buffer>;
  /** Cut the connection a while after so many bytes of a weight file (those in flight would be lost with it). */
  readonly cuts?: number[];
  /** Ranges are ignored. */
  readonly wholeOnly?: boolean;
}

let behaviour: Behaviour = {};
let requests: { url: string; range: string | undefined; authorization: string | undefined }[] = [];

function etagOf(
  name: string,
  content: Buffer,
): { blobId: string; size: number; lfs?: { sha256: string; size: number } } {
  const blobId = createHash("sha1").update(`blob ${content.length}\0`).update(content).digest("hex");
  const sha256 = createHash("sha256").update(content).digest("hex");
  const plain = { blobId, size: content.length };
  return name.endsWith(".safetensors") ? { ...plain, lfs: { sha256, size: content.length } } : plain;
}

function serve(request: IncomingMessage, response: ServerResponse): void {
  const url = request.url ?? "";
  const { range, authorization } = request.headers;
  requests.push({ url, range, authorization });
  if (behaviour.status !== undefined) {
    response.writeHead(behaviour.status, behaviour.headers ?? {});
    response.end("{}");
    return;
  }
  if (url.startsWith("/api/models/org/name/revision/")) {
    const siblings = Object.entries(files).map(([rfilename, content]) => ({
      rfilename,
      ...etagOf(rfilename, content),
    }));
    response.writeHead(200, { "content-type": "application/json" });
    response.end(JSON.stringify({ sha: commit, siblings }));
    return;
  }
  const name = decodeURIComponent(url.slice(`/org/name/resolve/${commit}/`.length));
  const content = behaviour.content?.[name] ?? files[name];
  if (content === undefined) {
    response.writeHead(404, { "x-error-code": "EntryNotFound" });
    response.end();
    return;
  }
  const [, from] = behaviour.wholeOnly ? [] : (/^bytes=(\d+)-$/.exec(range ?? "") ?? []);
  const start = Number(from ?? 0);
  response.writeHead(from === undefined ? 200 : 206, { "content-length": content.length - start });
  const cut = name === shard ? behaviour.cuts?.shift() : undefined;
  if (cut === undefined) response.end(content.subarray(start));
  else response.write(content.subarray(start, start + cut), () => setTimeout(() => response.destroy(), 300));
}

const server = createServer(serve);
await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
after(() => server.close());
const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

let caches = 0;

function environmentOf(more: Record<string, string> = {}): Record<string, string> {
  requests = [];
  return { HF_HUB_CACHE: path.join(folder, `cache-${caches++}`), HF_ENDPOINT: endpoint, ...more };
}

test("where the cache is", () => {
  const all = { HF_HUB_CACHE: "/a", HUGGINGFACE_HUB_CACHE: "/b", HF_HOME: "/c", XDG_CACHE_HOME: "/d" };
  assert.equal(hubCacheFolder(all), "/a");
  assert.equal(hubCacheFolder({ ...all, HF_HUB_CACHE: "" }), "/b");
  assert.equal(hubCacheFolder({ HF_HOME: "/c", XDG_CACHE_HOME: "/d" }), "/c/hub");
  assert.equal(hubCacheFolder({ XDG_CACHE_HOME: "/d" }), "/d/huggingface/hub");
  assert.match(hubCacheFolder({}), /\/\.cache\/huggingface\/hub$/);
  for (const value of ["1", "true", "YES", "on"]) assert.equal(isOffline({ HF_HUB_OFFLINE: value }), true);
  for (const value of ["0", "", "no"]) assert.equal(isOffline({ HF_HUB_OFFLINE: value }), false);
});

test("references", () => {
  assert.deepEqual(parseHubReference("org/name"), { id: "org/name", revision: "main" });
  assert.deepEqual(parseHubReference("org/na.me-1@refs/pr/51"), { id: "org/na.me-1", revision: "refs/pr/51" });
  assert.deepEqual(parseHubReference("name@v1"), { id: "name", revision: "v1" });
  for (const ref of ["", "/org/name", "./name", "a/b/c", "../name", "org/..", "org/name@../x", "org/name@", "a b"]) {
    assert.equal(parseHubReference(ref), null, ref);
  }
});

test("a repository is downloaded into the shared cache layout, and comes out of it the next time", async () => {
  behaviour = {};
  const environment = environmentOf({ HF_TOKEN: "secret" });
  const told: WeightsProgress[] = [];
  const found = await locateCheckpoint("org/name", { environment, onProgress: (progress) => told.push(progress) });
  const repository = path.join(environment.HF_HUB_CACHE ?? "", "models--org--name");
  assert.equal(found, path.join(repository, "snapshots", commit));
  assert.equal(await readFile(path.join(repository, "refs", "main"), "utf8"), commit);
  for (const [name, content] of Object.entries(files)) {
    if (name === "README.md") continue;
    const { blobId, lfs } = etagOf(name, content);
    const up = name.split("/").map(() => "..");
    assert.equal(await readlink(path.join(found, name)), path.join("..", ...up, "blobs", lfs?.sha256 ?? blobId));
    assert.ok((await readFile(path.join(found, name))).equals(content), name);
  }
  assert.ok(requests.every(({ authorization }) => authorization === "Bearer secret"));
  assert.ok(!requests.some(({ url }) => url.includes("README")));
  assert.deepEqual(told.at(-1), { phase: "download", what: shard, done: weights.length, total: weights.length });

  requests = [];
  assert.equal(await locateCheckpoint("org/name", { environment }), found);
  assert.equal(await locateCheckpoint(`org/name@${commit}`, { environment }), found);
  const offline = { ...environment, HF_HUB_OFFLINE: "1" };
  assert.equal((await openCheckpoint("org/name", { environment: offline })).tensors.size, 1);
  assert.deepEqual(requests, [], "the cache was enough");
});

test("a cache that the hub's own tools wrote is used as it is", async () => {
  const environment = environmentOf({ HF_HUB_OFFLINE: "1" });
  const repository = path.join(environment.HF_HUB_CACHE ?? "", "models--org--name");
  const snapshot = path.join(repository, "snapshots", commit);
  await mkdir(path.join(repository, "refs"), { recursive: true });
  await mkdir(snapshot, { recursive: true });
  await mkdir(path.join(repository, "blobs"), { recursive: true });
  await writeFile(path.join(repository, "refs", "main"), commit);
  await writeFile(path.join(repository, "blobs", "x"), "{}");
  for (const name of ["config.json", "preprocessor_config.json", "tokenizer.json"]) {
    await symlink("../../blobs/x", path.join(snapshot, name));
  }
  await assert.rejects(
    locateCheckpoint("org/name", { environment }),
    /expected all of its files .* HF_HUB_OFFLINE is set, got some/,
  );
  const index = path.join(snapshot, "model.safetensors.index.json");
  await writeFile(index, JSON.stringify({ weight_map: { a: shard } }));
  await assert.rejects(locateCheckpoint("org/name", { environment }), /got some/);
  await writeFile(path.join(snapshot, shard), weights);
  assert.equal(await locateCheckpoint("org/name", { environment }), snapshot);
  await writeFile(index, "{");
  await assert.rejects(openCheckpoint("org/name", { environment }), ConfigError);
  await rm(path.join(snapshot, "tokenizer.json"));
  await assert.rejects(locateCheckpoint("org/name", { environment }), /got some/);
});

test("a broken download goes on where it ended", async () => {
  behaviour = { cuts: [7000, 5000] };
  const found = await locateCheckpoint("org/name", { environment: environmentOf(), retryMilliseconds: 1 });
  assert.ok((await readFile(path.join(found, shard))).equals(weights));
  const ranges = requests.filter(({ url }) => url.endsWith(shard)).map(({ range }) => range);
  assert.deepEqual(ranges, [undefined, "bytes=7000-", "bytes=12000-"]);
});

test("what an ended process left is taken over; a server without ranges sends all of it again", async () => {
  behaviour = { wholeOnly: true };
  const environment = environmentOf();
  const blobs = path.join(environment.HF_HUB_CACHE ?? "", "models--org--name", "blobs");
  await mkdir(blobs, { recursive: true });
  const { lfs } = etagOf(shard, weights);
  // No process has the largest id that Linux can give.
  await writeFile(path.join(blobs, `${lfs?.sha256}.4194304.incomplete`), weights.subarray(0, 1000));
  const found = await locateCheckpoint("org/name", { environment });
  assert.ok((await readFile(path.join(found, shard))).equals(weights));
  assert.deepEqual(
    requests.filter(({ url }) => url.endsWith(shard)).map(({ range }) => range),
    ["bytes=1000-"],
  );
});

test("bytes that are not what the list promised never reach the cache", async () => {
  const other = Buffer.from(weights);
  other[other.length - 1] = 1;
  behaviour = { content: { [shard]: other } };
  const environment = environmentOf();
  await assert.rejects(locateCheckpoint("org/name", { environment }), (error: Error) => {
    return error instanceof HubError && /to have the hash/.test(error.message);
  });
  behaviour = { content: { [shard]: Buffer.concat([weights, weights]) } };
  await assert.rejects(locateCheckpoint("org/name", { environment, retryMilliseconds: 1 }), HubError);
  behaviour = { content: { "config.json": Buffer.from('{"model_type":"y"}') } };
  await assert.rejects(locateCheckpoint("org/name", { environment: environmentOf() }), /config\.json to have the hash/);
  behaviour = {};
  const found = await locateCheckpoint("org/name", { environment });
  assert.ok((await readFile(path.join(found, shard))).equals(weights), "the next run is not spoilt by it");
});

test("a download that keeps breaking ends with how far it came", async () => {
  behaviour = { cuts: [1000, 0, 0, 0, 0] };
  const environment = environmentOf();
  await assert.rejects(locateCheckpoint("org/name", { environment, retryMilliseconds: 1 }), (error: Error) => {
    assert.ok(error instanceof HubError, String(error));
    return new RegExp(`expected ${weights.length} bytes of ${shard}, got 1000 after 5 tries .*goes on from there`).test(
      error.message,
    );
  });
});

test("refusals: one sentence each, with the next step", async () => {
  const cases: [Behaviour, new (...given: never[]) => Error, RegExp][] = [
    [
      { status: 404, headers: { "x-error-code": "RepoNotFound" } },
      CheckpointError,
      /can be read, got 404 .*check the id/,
    ],
    [{ status: 401 }, CheckpointError, /got 401 .*set HF_TOKEN/],
    [
      { status: 403 },
      CheckpointError,
      /expected access, got 403: it is gated; accept its terms at .*org\/name and set HF_TOKEN/,
    ],
    [{ status: 401, headers: { "x-error-code": "GatedRepo" } }, CheckpointError, /it is gated/],
    [{ status: 404, headers: { "x-error-code": "RevisionNotFound" } }, CheckpointError, /expected this revision/],
    [{ status: 503 }, HubError, /expected status 200, got 503/],
    [{ status: 200 }, HubError, /expected a list of files/],
  ];
  for (const [given, type, message] of cases) {
    behaviour = given;
    await assert.rejects(locateCheckpoint("org/name", { environment: environmentOf() }), (error: Error) => {
      assert.ok(error instanceof type, `${error.name}: ${error.message}`);
      assert.match(error.message, message);
      return true;
    });
  }
  behaviour = {};
  const nowhere = environmentOf({ HF_ENDPOINT: "http://127.0.0.1:9" });
  await assert.rejects(
    locateCheckpoint("org/name", { environment: nowhere }),
    /expected http:\/\/127\.0\.0\.1:9 to answer, got/,
  );
  const offline = environmentOf({ HF_HUB_OFFLINE: "1" });
  await assert.rejects(
    locateCheckpoint("org/name", { environment: offline }),
    /HF_HUB_OFFLINE is set, got nothing; unset/,
  );
  await assert.rejects(
    locateCheckpoint("./no/such/folder", { environment: offline }),
    /expected a directory .* got neither/,
  );
});

test("a directory is taken as it is; a file is refused, though its name could be a repository's", async () => {
  const model = await writeFolder(folder, "local", { "config.json": "{}", "model.safetensors": weights });
  assert.equal(await locateCheckpoint(model, { environment: environmentOf() }), model);
  const before = process.cwd();
  process.chdir(model);
  try {
    await assert.rejects(
      locateCheckpoint("model.safetensors", { environment: environmentOf() }),
      new CheckpointError(
        "model.safetensors: expected a directory in Hugging Face layout, got a file; name the directory that holds it",
      ),
    );
  } finally {
    process.chdir(before);
  }
  assert.deepEqual(requests, []);
});
