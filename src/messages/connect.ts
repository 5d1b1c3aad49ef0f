// One NATS connection from the environment, under the names that NATS' own tools use.
//
//     NATS_URL        nats://host:port, tls://host:port; several with commas. Default nats://127.0.0.1:4222
//     NATS_CREDS      file with a JWT and its seed
//     NATS_NKEY       file with an nkey seed
//     NATS_USER, NATS_PASSWORD      or nats://user:password@host:port
//     NATS_TOKEN
//     NATS_CA, NATS_CERT, NATS_KEY  TLS files: the authority, this client's certificate and key

import { readFileSync } from "node:fs";
import {
  type Authenticator,
  connect,
  credsAuthenticator,
  errors,
  type NatsConnection,
  type NodeConnectionOptions,
  nkeyAuthenticator,
} from "@nats-io/transport-node";
import { messageOf, NatsConfigError, NatsUnavailableError } from "./errors.ts";

export type Environment = Readonly<Record<string, string | undefined>>;

export interface ConnectOptions {
  /** Shown in the server's monitoring and as the producer of prompts. */
  readonly name?: string;
  /** Milliseconds for the first connection. Default 5000. */
  readonly timeoutMs?: number;
}

/**
 * Connect, and from then on reconnect for ever: a server's restart is an outage, not an end.
 * @throws NatsConfigError when settings contradict each other, a file cannot be read or the server refuses us.
 * @throws NatsUnavailableError when nothing answers at the address.
 */
export async function connectNats(
  environment: Environment = process.env,
  options: ConnectOptions = {},
): Promise<NatsConnection> {
  const settings = natsOptions(environment);
  const servers = [settings.servers ?? []].flat().join(",");
  try {
    return await connect({
      ...settings,
      name: options.name ?? "blipfleet",
      timeout: options.timeoutMs ?? 5000,
    });
  } catch (error) {
    throw connectError(error, servers);
  }
}

/**
 * The client's options that the environment asks for.
 * @throws NatsConfigError
 */
export function natsOptions(environment: Environment): NodeConnectionOptions {
  const value = (name: string) => environment[name]?.trim() || undefined;
  const urls = (value("NATS_URL") ?? "nats://127.0.0.1:4222").split(",").map((text) => parseUrl(text.trim()));
  const fromUrl = urls.find((url) => url.username !== "");
  const user = value("NATS_USER") ?? (fromUrl && decodeURIComponent(fromUrl.username));
  const pass = value("NATS_PASSWORD") ?? (fromUrl && decodeURIComponent(fromUrl.password));
  const token = value("NATS_TOKEN");
  const authenticators = [
    credentials("NATS_CREDS", value("NATS_CREDS"), (text) => credsAuthenticator(asCredentials(text))),
    credentials("NATS_NKEY", value("NATS_NKEY"), (seed) => nkeyAuthenticator(asBytes(asSeed(seed)))),
  ].filter((entry) => entry !== undefined);
  const ways = authenticators.length + (user === undefined ? 0 : 1) + (token === undefined ? 0 : 1);
  if (ways > 1) {
    throw new NatsConfigError(
      "NATS: expected one of NATS_CREDS, NATS_NKEY, NATS_USER with NATS_PASSWORD, or NATS_TOKEN, got several; unset all but one",
    );
  }
  const tls = tlsOptions(value("NATS_CA"), value("NATS_CERT"), value("NATS_KEY"));
  const wantsTls = tls !== undefined || urls.some((url) => url.protocol === "tls:");
  return {
    servers: urls.map((url) => url.host),
    maxReconnectAttempts: -1,
    reconnectTimeWait: 250, // ms
    reconnectJitter: 100, // ms
    ignoreAuthErrorAbort: false,
    ...(user === undefined ? {} : { user, pass: pass ?? "" }),
    ...(token === undefined ? {} : { token }),
    ...(authenticators[0] === undefined ? {} : { authenticator: authenticators[0] }),
    ...(wantsTls ? { tls: tls ?? {} } : {}),
  };
}

function parseUrl(text: string): URL {
  const withScheme = text.includes("://") ? text : `nats://${text}`;
  const url = URL.canParse(withScheme) ? new URL(withScheme) : undefined;
  if (url === undefined || !["nats:", "tls:"].includes(url.protocol) || url.hostname === "") {
    throw new NatsConfigError(
      `NATS_URL: expected nats://host:port or tls://host:port, got ${JSON.stringify(text.replace(/\/\/[^@/]*@/, "//…@"))}`,
    );
  }
  if (url.port === "") url.port = "4222";
  return url;
}

function credentials(
  setting: string,
  path: string | undefined,
  build: (contents: string) => Authenticator,
): Authenticator | undefined {
  if (path === undefined) return undefined;
  const contents = readSetting(setting, path);
  try {
    return build(contents);
  } catch (error) {
    if (error instanceof NatsConfigError) throw error;
    throw new NatsConfigError(`${setting}: expected credentials in ${path}, got a file that is none`, { cause: error });
  }
}

/** nats.js takes credentials as bytes. */
function asBytes(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** The client looks into the file only when it signs in; a file that cannot be one is told here. */
function asCredentials(contents: string): Uint8Array {
  if (!/-----BEGIN NATS USER JWT-----[\s\S]+-----BEGIN USER NKEY SEED-----/.test(contents)) {
    throw new NatsConfigError("NATS_CREDS: expected credentials (a user JWT and its seed), got a file without them");
  }
  return asBytes(contents);
}

/** An nkey file may hold comments around the seed. */
function asSeed(contents: string): string {
  const seed = /\bS[A-Z2-7]{57}\b/.exec(contents)?.[0];
  if (seed === undefined) throw new NatsConfigError("NATS_NKEY: expected a seed that starts with S, got none");
  return seed;
}

function tlsOptions(
  ca?: string,
  cert?: string,
  key?: string,
): { ca?: string; cert?: string; key?: string } | undefined {
  if (ca === undefined && cert === undefined && key === undefined) return undefined;
  if ((cert === undefined) !== (key === undefined)) {
    throw new NatsConfigError("NATS: expected NATS_CERT and NATS_KEY together, got one of them; set both or neither");
  }
  return {
    ...(ca === undefined ? {} : { ca: readSetting("NATS_CA", ca) }),
    ...(cert === undefined ? {} : { cert: readSetting("NATS_CERT", cert) }),
    ...(key === undefined ? {} : { key: readSetting("NATS_KEY", key) }),
  };
}

function readSetting(setting: string, path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    throw new NatsConfigError(`${setting}: expected a readable file, got ${messageOf(error)}`, { cause: error });
  }
}

function connectError(error: unknown, servers: string): Error {
  if (error instanceof errors.AuthorizationError || error instanceof errors.UserAuthenticationExpiredError) {
    return new NatsConfigError(
      `NATS: expected ${servers} to accept this client, got ${messageOf(error)}; set NATS_CREDS, NATS_NKEY, NATS_USER with NATS_PASSWORD, or NATS_TOKEN`,
      { cause: error },
    );
  }
  return new NatsUnavailableError(
    `NATS: expected a server at ${servers} (NATS_URL), got ${messageOf(error)}; start one with "blipfleet dev" or set NATS_URL`,
    { cause: error },
  );
}
