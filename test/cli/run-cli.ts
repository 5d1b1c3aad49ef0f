// Run the command line as a user does, and the cases of the fixtures as command lines.

import { spawn } from "node:child_process";
import { join } from "node:path";
import { packageRoot } from "../../src/gpu/package-root.ts";

export const images: string = join(packageRoot, "test", "fixtures", "images");

/** The folder of a fixture that writes texts, and of every kind of BLIP. */
export function model(name: string): string {
  const own = { "blip-": "blip", "instructblip-": "instructblip", "visualglm-": "glm" };
  const [, folder = "models"] = Object.entries(own).find(([start]) => name.startsWith(start)) ?? [];
  return join(packageRoot, "test", "fixtures", folder, name);
}

/** One case of a checkpoint's expected.json. */
export interface Case {
  /** e.g. ["ask", "shapes.jpg", "what is it?", "--num-beams", "3"]; the image is relative to the fixtures' images. */
  readonly command: readonly string[];
  readonly text: string;
  readonly token_ids: readonly number[];
}

/** A fixture's text as an argument: the empty one is refused there, and a space has the same ids in the models that read one. */
export function argumentOf(text: string): string {
  return text === "" ? " " : text;
}

/** The case's command line, as arguments. */
export function commandOf({ command }: Case, name: string, dtype: "f32" | "f16"): string[] {
  const [verb = "", image = "", ...rest] = command;
  return [
    verb,
    join(images, image),
    ...rest.map(argumentOf),
    "--model",
    model(name),
    "--dtype",
    dtype,
    "--format",
    "jsonl",
  ];
}

/** The line of output that transformers' answer asks for. */
export function expectedLine({ command, text, token_ids }: Case): Record<string, unknown> {
  const [verb, image = "", question = ""] = command;
  return { image: join(images, image), ...(verb === "ask" ? { question: argumentOf(question) } : {}), text, token_ids };
}

/** Run this build's command line to its end. */
export function runCli(
  args: readonly string[],
  env: NodeJS.ProcessEnv = process.env,
): Promise<{ status: number | null; stdout: string; stderr: string }> {
  const child = spawn(process.execPath, [join(import.meta.dirname, "../../src/cli/main.js"), ...args], {
    stdio: ["ignore", "pipe", "pipe"],
    env,
  });
  let stdout = "";
  let stderr = "";
  child.stdout.on("data", (data: Buffer) => {
    stdout += data.toString("utf8");
  });
  child.stderr.on("data", (data: Buffer) => {
    stderr += data.toString("utf8");
  });
  return new Promise((resolve) => {
    child.on("close", (status) => resolve({ status, stdout, stderr }));
  });
}
