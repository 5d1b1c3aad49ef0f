// The records of an input, one format each, with the line that each came from. Nothing is judged here but the format.

import { createReadStream } from "node:fs";
import { parse } from "csv-parse";
import { ManifestError } from "./errors.ts";

/** What one line asks for, or what is wrong with it. */
export type InputRecord =
  | {
      readonly line: number;
      readonly id: string | undefined;
      readonly image: string;
      readonly prompt: string | null;
      /** Texts or labels; empty where a line has none, or they were not asked for. */
      readonly texts: readonly string[];
    }
  | { readonly line: number; readonly problem: string };

export interface LinesOptions {
  /** Read `text` or `texts` too; without it they are fields like any other. */
  readonly texts?: boolean;
  /** The field that texts are in; with an s, that of a list of them. Default "text". */
  readonly textField?: TextField;
  readonly signal?: AbortSignal;
}

export type TextField = "text" | "label";

/** Longest line in bytes; a path, an id and a prompt are far below it. */
const longestLine = 2 ** 20;

/** One path per line, exactly as written; empty lines are left out. */
export async function* textRecords(path: string, { signal }: LinesOptions = {}): AsyncGenerator<InputRecord> {
  for await (const { line, text, problem } of lines(path, signal)) {
    if (problem !== undefined) yield { line, problem };
    else if (text !== "") yield { line, id: undefined, image: text, prompt: null, texts: [] };
  }
}

/** One object per line: {image, id?, prompt?, text? or texts?, or labels in their place}; other fields are left alone, empty lines are left out. */
export async function* jsonlRecords(path: string, options: LinesOptions = {}): AsyncGenerator<InputRecord> {
  for await (const { line, text, problem } of lines(path, options.signal)) {
    if (problem !== undefined) yield { line, problem };
    else if (text.trim() !== "") yield jsonRecord(line, text, options);
  }
}

function jsonRecord(line: number, text: string, options: LinesOptions): InputRecord {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return { line, problem: `expected a JSON object, got text that is not JSON: ${shorten(text)}` };
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return { line, problem: `expected a JSON object, got ${shorten(text)}` };
  }
  const { image, id, prompt }: { image?: unknown; id?: unknown; prompt?: unknown } = value;
  if (typeof image !== "string" || image === "") {
    return { line, problem: `expected "image" to be a path, got ${shorten(JSON.stringify(image) ?? "none")}` };
  }
  const isNumber = typeof id === "number" && Number.isSafeInteger(id);
  if (!(id === undefined || isNumber || (typeof id === "string" && id !== ""))) {
    return { line, problem: `expected "id" to be a text or a whole number, got ${shorten(JSON.stringify(id))}` };
  }
  if (!(prompt === undefined || prompt === null || typeof prompt === "string")) {
    return { line, problem: `expected "prompt" to be a text, got ${shorten(JSON.stringify(prompt))}` };
  }
  const texts = options.texts ? textsOf(value, options.textField ?? "text") : [];
  if ("problem" in texts) return { line, ...texts };
  return { line, id: id === undefined ? undefined : String(id), image, prompt: prompt ?? null, texts };
}

function textsOf(value: object, field: TextField): readonly string[] | { problem: string } {
  const { [field]: text = null, [`${field}s` as const]: texts = null } = value as Readonly<Record<string, unknown>>;
  if (text === null && texts === null) return [];
  if (text !== null && texts !== null) return { problem: `expected "${field}" or "${field}s", got both` };
  if (typeof text === "string") return [text];
  if (Array.isArray(texts) && texts.every((each) => typeof each === "string")) return texts;
  const [name, wanted, got] =
    texts === null ? [field, `a ${field}`, text] : [`${field}s`, `a list of ${field}s`, texts];
  return { problem: `expected "${name}" to be ${wanted}, got ${shorten(JSON.stringify(got))}` };
}

/** A header line with `image` and perhaps `id`, `prompt` and `text` or `label`; other columns are left alone, empty cells are absent. */
export async function* csvRecords(path: string, options: LinesOptions = {}): AsyncGenerator<InputRecord> {
  const { signal } = options;
  const parser = parse({
    bom: true,
    info: true,
    relax_column_count: true,
    skip_empty_lines: true,
    max_record_size: longestLine,
  });
  const source = createReadStream(path, signal === undefined ? {} : { signal });
  source.on("error", (error) => parser.destroy(error));
  source.pipe(parser);
  let columns: Columns | undefined;
  try {
    for await (const entry of parser) {
      const { record, info }: { record: string[]; info: { lines: number } } = entry;
      const line = info.lines;
      if (columns === undefined) {
        columns = readHeader(record, options.textField ?? "text");
        if (columns === undefined) {
          yield { line, problem: `expected a header with the column "image", got ${shorten(record.join(","))}` };
          return;
        }
      } else {
        yield csvRecord(line, record, columns, options);
      }
    }
  } catch (error) {
    signal?.throwIfAborted();
    if (!(error instanceof Error && "code" in error && String(error.code).startsWith("CSV_"))) throw error;
    const line = "lines" in error ? Number(error.lines) : 0;
    yield { line, problem: `expected CSV, got: ${error.message}; the lines after it were not read` };
  } finally {
    source.destroy();
  }
}

interface Columns {
  readonly count: number;
  readonly image: number;
  readonly id: number;
  readonly prompt: number;
  readonly text: number;
}

function readHeader(names: readonly string[], field: TextField): Columns | undefined {
  const trimmed = names.map((name) => name.trim());
  const image = trimmed.indexOf("image");
  const hasDoubles = ["image", "id", "prompt", field].some(
    (name) => trimmed.indexOf(name) !== trimmed.lastIndexOf(name),
  );
  if (image < 0 || hasDoubles) return undefined;
  const [id = -1, prompt = -1, text = -1] = ["id", "prompt", field].map((name) => trimmed.indexOf(name));
  return { count: names.length, image, id, prompt, text };
}

function csvRecord(line: number, cells: readonly string[], columns: Columns, options: LinesOptions): InputRecord {
  if (cells.length !== columns.count) {
    return { line, problem: `expected ${columns.count} columns as in the header, got ${cells.length}` };
  }
  const image = cells[columns.image] ?? "";
  if (image === "") return { line, problem: 'expected "image" to be a path, got an empty cell' };
  const text = options.texts ? cells[columns.text] || null : null;
  const texts = text === null ? [] : [text];
  return { line, id: cells[columns.id] || undefined, image, prompt: cells[columns.prompt] || null, texts };
}

interface Line {
  /** From 1. */
  readonly line: number;
  readonly text: string;
  readonly problem?: string;
}

/** The lines of a UTF-8 file without their ends (LF or CRLF) and without a byte order mark; memory is one line's. */
async function* lines(path: string, signal?: AbortSignal): AsyncGenerator<Line> {
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  let line = 0;
  let pending: Buffer[] = [];
  let pendingBytes = 0;

  const finish = (last: Buffer): Line => {
    line += 1;
    const tooLong = pendingBytes + last.length > longestLine;
    const whole = tooLong || pending.length === 0 ? last : Buffer.concat([...pending, last]);
    pending = [];
    pendingBytes = 0;
    if (tooLong) return { line, text: "", problem: `expected at most ${longestLine} bytes, got a longer line` };
    try {
      const text = decoder.decode(whole).replace(/\r$/, "");
      return { line, text: line === 1 ? text.replace(/^\uFEFF/, "") : text };
    } catch {
      return { line, text: "", problem: "expected UTF-8, got bytes that are not" };
    }
  };

  const stream: AsyncIterable<Buffer> = createReadStream(path, signal === undefined ? {} : { signal });
  for await (const chunk of stream) {
    let start = 0;
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, start)) {
      yield finish(chunk.subarray(start, end));
      start = end + 1;
    }
    const rest = chunk.subarray(start);
    pendingBytes += rest.length;
    if (pendingBytes <= longestLine) pending.push(rest);
    else pending = [];
  }
  if (pendingBytes > 0) yield finish(Buffer.alloc(0));
}

/** At most 60 characters, for messages. */
export function shorten(text: string): string {
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}

/** Whether a file is read as a list of images, by its ending. */
export function isList(path: string): boolean {
  return /\.(jsonl|ndjson|csv|txt|list|lst)$/i.test(path);
}

/** The reader for a list file, by its ending. @throws ManifestError naming the endings. */
export function recordsOf(path: string, options: LinesOptions = {}): AsyncGenerator<InputRecord> {
  if (/\.(jsonl|ndjson)$/i.test(path)) return jsonlRecords(path, options);
  if (/\.csv$/i.test(path)) return csvRecords(path, options);
  if (/\.(txt|list|lst)$/i.test(path)) return textRecords(path, options);
  throw new ManifestError(
    `input: expected a folder or a list that ends with .txt, .jsonl or .csv, got ${JSON.stringify(path)}`,
  );
}
