// Recorded histories as JSON files, one per workflow run.

import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import proto, { type temporal } from "@temporalio/proto";
import { packageRoot } from "../../src/gpu/package-root.ts";

export const historiesFolder = join(packageRoot, "test/fixtures/histories");

const { History } = proto.temporal.api.history.v1;

/** The file's JSON: protobuf's own field names, 64-bit numbers and bytes as strings, enums by name. */
export interface Recorded {
  readonly workflowId: string;
  readonly history: {
    readonly events: readonly {
      readonly activityTaskScheduledEventAttributes?: { activityType: { name: string } };
    }[];
  };
}

export function historyNames(): string[] {
  return readdirSync(historiesFolder).filter((name) => name.endsWith(".json"));
}

export function readHistory(name: string): Recorded {
  return JSON.parse(readFileSync(join(historiesFolder, name), "utf8"));
}

export function writeHistory(name: string, workflowId: string, history: temporal.api.history.v1.IHistory): void {
  const plain = History.toObject(History.fromObject(history), { longs: String, bytes: String, enums: String });
  writeFileSync(join(historiesFolder, name), `${JSON.stringify({ workflowId, history: plain })}\n`);
}

/** For Worker.runReplayHistory, whose own reader of JSON needs one copy of protobufjs in the tree. */
export function toProto({ history }: Recorded): temporal.api.history.v1.IHistory {
  return History.fromObject(history);
}
