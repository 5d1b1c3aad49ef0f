// Where Temporal is, from the environment, under the names that Temporal's own tools use.
//
//     TEMPORAL_ADDRESS     host:port. Default 127.0.0.1:7233
//     TEMPORAL_NAMESPACE   default "default"
//     TEMPORAL_API_KEY     implies TLS
//     TEMPORAL_TLS         true or false
//     TEMPORAL_TLS_SERVER_CA_CERT_PATH, …_DATA, TEMPORAL_TLS_SERVER_NAME
//     TEMPORAL_TLS_CLIENT_CERT_PATH, …_DATA with TEMPORAL_TLS_CLIENT_KEY_PATH, …_DATA

import { readFileSync } from "node:fs";
import type { TLSConfig } from "@temporalio/common/lib/internal-non-workflow/index.js";

export type Environment = Readonly<Record<string, string | undefined>>;

/** The settings of the Temporal connection cannot work. */
export class TemporalConfigError extends Error {
  override readonly name = "TemporalConfigError";
}

/** No Temporal server answers at the address. Retry later, or start one. */
export class TemporalUnavailableError extends Error {
  override readonly name = "TemporalUnavailableError";
}

export interface TemporalSettings {
  readonly address: string;
  readonly namespace: string;
  readonly apiKey?: string;
  readonly tls?: TLSConfig | true;
}

/** @throws TemporalConfigError */
export function temporalSettings(environment: Environment = process.env): TemporalSettings {
  const value = (name: string) => environment[name]?.trim() || undefined;
  const address = value("TEMPORAL_ADDRESS") ?? "127.0.0.1:7233";
  if (!/^[^\s/]+:\d{1,5}$/.test(address)) {
    throw new TemporalConfigError(`TEMPORAL_ADDRESS: expected host:port, got ${JSON.stringify(address)}`);
  }
  const apiKey = value("TEMPORAL_API_KEY");
  const tls = tlsSettings(environment, apiKey !== undefined);
  return {
    address,
    namespace: value("TEMPORAL_NAMESPACE") ?? "default",
    ...(apiKey === undefined ? {} : { apiKey }),
    ...(tls === undefined ? {} : { tls }),
  };
}

function tlsSettings(environment: Environment, hasKey: boolean): TLSConfig | true | undefined {
  const ca = contents(environment, "TEMPORAL_TLS_SERVER_CA_CERT");
  const crt = contents(environment, "TEMPORAL_TLS_CLIENT_CERT");
  const key = contents(environment, "TEMPORAL_TLS_CLIENT_KEY");
  const serverName = environment.TEMPORAL_TLS_SERVER_NAME || undefined;
  if ((crt === undefined) !== (key === undefined)) {
    throw new TemporalConfigError(
      "Temporal: expected TEMPORAL_TLS_CLIENT_CERT_PATH and TEMPORAL_TLS_CLIENT_KEY_PATH together, got one; set both or neither",
    );
  }
  const wanted = environment.TEMPORAL_TLS?.trim().toLowerCase();
  if (wanted === "false" || wanted === "0") return undefined;
  if (ca === undefined && crt === undefined && serverName === undefined) {
    return hasKey || wanted === "true" || wanted === "1" ? true : undefined;
  }
  return {
    ...(ca === undefined ? {} : { serverRootCACertificate: ca }),
    ...(serverName === undefined ? {} : { serverNameOverride: serverName }),
    ...(crt === undefined || key === undefined ? {} : { clientCertPair: { crt, key } }),
  };
}

function contents(environment: Environment, name: string): Buffer | undefined {
  const data = environment[`${name}_DATA`];
  if (data) return Buffer.from(data, "utf8");
  const path = environment[`${name}_PATH`];
  if (!path) return undefined;
  try {
    return readFileSync(path);
  } catch (error) {
    throw new TemporalConfigError(`${name}_PATH: expected a readable file, got ${path}`, { cause: error });
  }
}

export function temporalUnavailable(settings: TemporalSettings, cause: unknown): TemporalUnavailableError {
  const told = cause instanceof Error ? cause.message : String(cause);
  // The worker's native client tells its nested errors as Rust prints them; the innermost one says it.
  const reason = /message: "([^"]+)" \}/.exec(told)?.[1] ?? told;
  return new TemporalUnavailableError(
    `Temporal: expected a server at ${settings.address} (TEMPORAL_ADDRESS), got: ${reason}; ` +
      'start one with "blipfleet dev" or set TEMPORAL_ADDRESS',
    { cause },
  );
}
