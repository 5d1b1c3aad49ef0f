// A worker's log on stderr: JSON lines for machines, one short line per event on a terminal.

import { Writable } from "node:stream";
import { type Logger, pino } from "pino";

export type { Logger } from "pino";

/** @param level pino's names; BLIPFLEET_LOG in the environment, default "info" */
export function workerLog(level: string = process.env.BLIPFLEET_LOG ?? "info"): Logger {
  const options = { name: "blipfleet", level, formatters: { level: (label: string) => ({ level: label }) } };
  return pino(options, process.stderr.isTTY ? forPeople(process.stderr) : process.stderr);
}

/** pino's JSON lines as `12:00:01 message  job=… chunk=…`. */
function forPeople(target: NodeJS.WritableStream): Writable {
  return new Writable({
    write(chunk: Buffer, _encoding, done) {
      for (const line of chunk.toString("utf8").split("\n")) {
        if (line !== "") target.write(`${readable(line)}\n`);
      }
      done();
    },
  });
}

/** One JSON line of the log as a person reads it; a line that is no JSON stays as it is. */
export function readable(line: string): string {
  let fields: Record<string, unknown>;
  try {
    fields = JSON.parse(line);
  } catch {
    return line;
  }
  const { time, level, msg, name: _name, pid: _pid, hostname: _hostname, ...rest } = fields;
  const clock = new Date(Number(time)).toTimeString().slice(0, 8);
  const details = Object.entries(rest).map(
    ([key, value]) => `${key}=${typeof value === "string" ? value : JSON.stringify(value)}`,
  );
  return [clock, level === "info" ? "" : `${String(level)}:`, msg, ...details].filter((part) => part !== "").join(" ");
}
