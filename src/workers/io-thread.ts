// What io threads do: image files to pixels, text to ids and back. Sharp and tokenizers never run on the main thread.

import { move, transferableSymbol, valueSymbol } from "piscina";
import { toPixels } from "../image/pixels.ts";
import type { ImageSettings, Pixels } from "../stages.ts";
import { stopLength } from "../text/stop-strings.ts";
import { openTokenizer } from "../text/tokenizer.ts";
import { TokenizerError } from "../text/tokenizer-error.ts";
import { type ErrorRecord, toRecord } from "./thread-error.ts";

export interface IoTasks {
  /** @throws ImageError */
  toPixels(task: PixelsTask): Promise<Pixels>;
  /** @throws TokenizerError */
  tokenize(task: { readonly folder: string; readonly text: string | null }): Promise<number[]>;
  /** Of a checkpoint whose tokenizer has tokenizeAnswer. @throws TokenizerError */
  tokenizeAnswer(task: { readonly folder: string; readonly text: string }): Promise<number[]>;
  /** @throws TokenizerError */
  detokenize(task: { readonly folder: string; readonly ids: readonly number[] }): Promise<string>;
  /** See stopLength. @throws TokenizerError */
  stopLength(task: StopTask): Promise<number | null>;
}

export interface PixelsTask {
  readonly image: Uint8Array;
  readonly settings: ImageSettings;
  /** Of an animated image; left out: the first. */
  readonly frame?: number;
}

export interface StopTask {
  readonly folder: string;
  readonly ids: readonly number[];
  readonly stopStrings: readonly string[];
  readonly checked: number;
}

export type IoTask = {
  [Name in keyof IoTasks]: { readonly name: Name; readonly task: Parameters<IoTasks[Name]>[0] };
}[keyof IoTasks];

/** One per checkpoint and thread: parsing a large tokenizer.json takes a good part of a second. */
const tokenizers = new Map<string, ReturnType<typeof openTokenizer>>();

function tokenizer(folder: string): ReturnType<typeof openTokenizer> {
  let opened = tokenizers.get(folder);
  if (opened === undefined) {
    opened = openTokenizer(folder);
    tokenizers.set(folder, opened);
    opened.catch(() => tokenizers.delete(folder));
  }
  return opened;
}

async function perform(task: IoTask): Promise<unknown> {
  switch (task.name) {
    case "toPixels":
      return toPixels(task.task.image, task.task.settings, task.task.frame);
    case "tokenize":
      return (await tokenizer(task.task.folder)).tokenize(task.task.text);
    case "tokenizeAnswer": {
      const { tokenizeAnswer } = await tokenizer(task.task.folder);
      if (tokenizeAnswer) return tokenizeAnswer(task.task.text);
      throw new TokenizerError(
        `${task.task.folder}: expected a tokenizer of answers by themselves, got another; use tokenize`,
      );
    }
    case "detokenize":
      return (await tokenizer(task.task.folder)).detokenize(task.task.ids);
    case "stopLength": {
      const { folder, ids, stopStrings, checked } = task.task;
      return stopLength(await tokenizer(folder), ids, stopStrings, checked);
    }
  }
}

/** Piscina calls this in an io thread. Errors are records, because a clone of an error loses its class name. */
export async function run(task: IoTask): Promise<{ readonly value: unknown } | { readonly error: ErrorRecord }> {
  try {
    const value = await perform(task);
    return task.name === "toPixels" ? moved({ value }, (value as Pixels).data.buffer as ArrayBuffer) : { value };
  } catch (error) {
    return { error: toRecord(error) };
  }
}

/** `value` with `buffer` handed over instead of copied. */
function moved<T extends object>(value: T, buffer: ArrayBuffer): T {
  return move({ [transferableSymbol]: [buffer], [valueSymbol]: value }) as T;
}
