import assert from "node:assert/strict";
import { existsSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { nkeys } from "@nats-io/transport-node";
import { connectNats, natsOptions } from "../../src/messages/connect.ts";
import { NatsConfigError, NatsUnavailableError } from "../../src/messages/errors.ts";
import { startNats } from "../../src/workers/servers/nats.ts";
import { temporaryFolder } from "../jobs/temporary-folder.ts";

const root = temporaryFolder();
const tls = join(packageRoot(dirname(fileURLToPath(import.meta.url))), "test/messages/tls");
const file = (name: string, contents: string) => {
  writeFileSync(join(root, name), contents);
  return join(root, name);
};

function packageRoot(folder: string): string {
  return existsSync(join(folder, "package.json")) ? folder : packageRoot(dirname(folder));
}

describe("the environment", () => {
  test("without settings it is the local server, reconnecting for ever", () => {
    const options = natsOptions({});
    assert.deepEqual(options.servers, ["127.0.0.1:4222"]);
    assert.equal(options.maxReconnectAttempts, -1);
    assert.equal(options.tls, undefined);
    assert.equal(options.authenticator, undefined);
  });

  test("one URL, several, without scheme or port, with user and password", () => {
    assert.deepEqual(natsOptions({ NATS_URL: "nats://a:5000,b , tls://c:7000" }).servers, [
      "a:5000",
      "b:4222",
      "c:7000",
    ]);
    assert.deepEqual(natsOptions({ NATS_URL: "tls://c" }).tls, {});
    const { servers, user, pass } = natsOptions({ NATS_URL: "nats://fle%40et:p%3Aw@host:4000" });
    assert.deepEqual({ servers, user, pass }, { servers: ["host:4000"], user: "fle@et", pass: "p:w" });
    const both = natsOptions({ NATS_USER: "u", NATS_PASSWORD: "p" });
    assert.deepEqual([both.user, both.pass], ["u", "p"]);
    assert.equal(natsOptions({ NATS_TOKEN: "t" }).token, "t");
  });

  test("a bad URL is named without its password", () => {
    for (const url of ["http://host", "nats://", "nats://user:hunter2@:0", "nats://user:hunter2@ho st"]) {
      assert.throws(
        () => natsOptions({ NATS_URL: url }),
        (error: Error) => {
          assert.ok(error instanceof NatsConfigError);
          assert.match(error.message, /NATS_URL: expected nats:\/\/host:port/);
          assert.ok(!error.message.includes("hunter2"), error.message);
          return true;
        },
      );
    }
  });

  test("two ways to say who we are, half a certificate, and unreadable files are refused", () => {
    const cases: readonly (readonly [Record<string, string>, RegExp])[] = [
      [{ NATS_TOKEN: "t", NATS_USER: "u" }, /expected one of NATS_CREDS.*got several/],
      [{ NATS_CERT: file("cert", "x") }, /NATS_CERT and NATS_KEY together/],
      [{ NATS_CREDS: join(root, "none") }, /NATS_CREDS: expected a readable file, got ENOENT/],
      [{ NATS_NKEY: file("bad.nk", "no seed here") }, /NATS_NKEY: expected .*seed/],
      [{ NATS_CREDS: file("bad.creds", "nothing") }, /NATS_CREDS: expected credentials \(a user JWT/],
      [{ NATS_CA: join(root, "none") }, /NATS_CA: expected a readable file/],
    ];
    for (const [environment, pattern] of cases) {
      assert.throws(
        () => natsOptions(environment),
        (error: Error) => {
          assert.ok(error instanceof NatsConfigError, `expected NatsConfigError, got ${error}`);
          assert.match(error.message, pattern);
          return true;
        },
      );
    }
  });
});

describe("against a server", () => {
  test("TLS on both sides with NATS_CA, NATS_CERT and NATS_KEY; refused without", async () => {
    const names = { cert: "server.pem", key: "server-key.pem", ca: "ca.pem" } as const;
    const line = (setting: string, name: string) => `${setting}: ${JSON.stringify(join(tls, name))}`;
    const credentials = {
      NATS_CA: join(tls, "ca.pem"),
      NATS_CERT: join(tls, "client.pem"),
      NATS_KEY: join(tls, "client-key.pem"),
    };
    const server = await startNats({
      storeDir: join(root, "tls"),
      configLines: [
        `tls { ${line("cert_file", names.cert)}, ${line("key_file", names.key)}, ${line("ca_file", names.ca)}, verify: true }`,
      ],
      credentials,
    });
    try {
      const connection = await connectNats({ ...credentials, NATS_URL: `tls://127.0.0.1:${server.port}` });
      assert.equal(connection.info?.tls_required, true);
      await connection.close();
      await assert.rejects(connectNats({ NATS_URL: `tls://127.0.0.1:${server.port}` }), (error: Error) => {
        assert.ok(error instanceof NatsUnavailableError);
        assert.match(error.message, /certificate|self-signed|verify/i);
        return true;
      });
    } finally {
      await server.stop();
    }
  });

  test("NATS_NKEY signs in with the seed of a file; another seed is refused", async () => {
    const [user, stranger] = [nkeys.createUser(), nkeys.createUser()];
    const seedOf = (pair: typeof user) => `# a comment\n${new TextDecoder().decode(pair.getSeed())}\n`;
    const credentials = { NATS_NKEY: file("user.nk", seedOf(user)) };
    const server = await startNats({
      storeDir: join(root, "nkey"),
      configLines: [`authorization { users: [ { nkey: ${user.getPublicKey()} } ] }`],
      credentials,
    });
    try {
      const connection = await connectNats({ ...credentials, NATS_URL: server.url });
      await connection.close();
      const other = { NATS_NKEY: file("stranger.nk", seedOf(stranger)), NATS_URL: server.url };
      await assert.rejects(connectNats(other), NatsConfigError);
    } finally {
      await server.stop();
    }
  });
});
