// What can go wrong with a server that we start ourselves.

/** A server's binary is not on this machine. */
export class ServerMissingError extends Error {
  override readonly name = "ServerMissingError";
}

/** A server did not become ready, or died. */
export class ServerError extends Error {
  override readonly name = "ServerError";
}
