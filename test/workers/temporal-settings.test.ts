// Where Temporal is, as the environment says.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { NativeConnection } from "@temporalio/worker";
import { connectJobs, timingOf } from "../../src/workers/job-client.ts";
import { temporalSettings, temporalUnavailable } from "../../src/workers/temporal-settings.ts";
import { temporaryFolder } from "../jobs/temporary-folder.ts";

const folder = temporaryFolder();

test("nothing set: the local server, no TLS", () => {
  assert.deepEqual(temporalSettings({}), { address: "127.0.0.1:7233", namespace: "default" });
});

test("an API key implies TLS; TEMPORAL_TLS=false turns it off", () => {
  const environment = { TEMPORAL_ADDRESS: "cloud.example:7233", TEMPORAL_NAMESPACE: "fleet", TEMPORAL_API_KEY: "k" };
  assert.deepEqual(temporalSettings(environment), {
    address: "cloud.example:7233",
    namespace: "fleet",
    apiKey: "k",
    tls: true,
  });
  assert.equal(temporalSettings({ ...environment, TEMPORAL_TLS: "false" }).tls, undefined);
  assert.equal(temporalSettings({ TEMPORAL_TLS: "true" }).tls, true);
});

test("certificates from files and from the environment", () => {
  const path = join(folder, "ca.pem");
  writeFileSync(path, "authority");
  assert.deepEqual(
    temporalSettings({
      TEMPORAL_TLS_SERVER_CA_CERT_PATH: path,
      TEMPORAL_TLS_CLIENT_CERT_DATA: "certificate",
      TEMPORAL_TLS_CLIENT_KEY_DATA: "key",
      TEMPORAL_TLS_SERVER_NAME: "temporal.internal",
    }).tls,
    {
      serverRootCACertificate: Buffer.from("authority"),
      clientCertPair: { crt: Buffer.from("certificate"), key: Buffer.from("key") },
      serverNameOverride: "temporal.internal",
    },
  );
});

test("settings that cannot work name the variable", () => {
  const refused = (environment: Record<string, string>, message: RegExp) =>
    assert.throws(() => temporalSettings(environment), { name: "TemporalConfigError", message });
  refused({ TEMPORAL_ADDRESS: "http://host/path" }, /^TEMPORAL_ADDRESS: expected host:port, got "http:/);
  refused({ TEMPORAL_TLS_CLIENT_CERT_DATA: "c" }, /TEMPORAL_TLS_CLIENT_KEY_PATH together, got one/);
  refused(
    { TEMPORAL_TLS_SERVER_CA_CERT_PATH: join(folder, "none") },
    /^TEMPORAL_TLS_SERVER_CA_CERT_PATH: expected a readable/,
  );
});

test("no server: the address, the variable and what to do", async () => {
  await assert.rejects(connectJobs({ TEMPORAL_ADDRESS: "127.0.0.1:1" }), {
    name: "TemporalUnavailableError",
    message: /expected a server at 127\.0\.0\.1:1 \(TEMPORAL_ADDRESS\).*"blipfleet dev"/s,
  });
});

test("a worker's native client is told in words as well", async () => {
  const settings = temporalSettings({ TEMPORAL_ADDRESS: "127.0.0.1:1" });
  const error = await NativeConnection.connect({ address: settings.address }).then(
    () => assert.fail("expected no server"),
    (cause: unknown) => temporalUnavailable(settings, cause),
  );
  assert.match(error.message, /\(TEMPORAL_ADDRESS\), got: Connection refused; start one with/);
});

test("timing comes from the environment in seconds; nonsense is the default", () => {
  assert.deepEqual(timingOf({}), { heartbeatSeconds: 20, silentSeconds: 60 });
  assert.deepEqual(timingOf({ BLIPFLEET_HEARTBEAT_TIMEOUT: "2.5", BLIPFLEET_SILENT_AFTER: "-1" }), {
    heartbeatSeconds: 2.5,
    silentSeconds: 60,
  });
});
