// Writes safetensors files and checkpoints for tests, honest and hostile ones.

import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { after } from "node:test";

/** A folder that is gone when the file's tests are done. */
export async function temporaryFolder(): Promise<string> {
  const folder = await mkdtemp(path.join(tmpdir(), "blipfleet-weights-"));
  after(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

export interface FileTensor {
  readonly shape: readonly number[];
  readonly dtype?: string;
}

const bytesOf: Readonly<Record<string, number>> = { F32: 4, F16: 2, BF16: 2, I64: 8, U8: 1 };

/** A well-formed file of zeros. */
export function safetensors(tensors: Readonly<Record<string, FileTensor>>): Buffer {
  let end = 0;
  const header: Record<string, unknown> = { __metadata__: { format: "pt" } };
  for (const [name, { shape, dtype = "F32" }] of Object.entries(tensors)) {
    const bytes = shape.reduce((product, size) => product * size, bytesOf[dtype] ?? 4);
    header[name] = { dtype, shape, data_offsets: [end, end + bytes] };
    end += bytes;
  }
  return withHeader(JSON.stringify(header), end);
}

/** A file with this header and `dataBytes` of zeros behind it. */
export function withHeader(header: string, dataBytes: number, claimedLength?: bigint): Buffer {
  const text = Buffer.from(header);
  const head = Buffer.alloc(8);
  head.writeBigUInt64LE(claimedLength ?? BigInt(text.length));
  return Buffer.concat([head, text, Buffer.alloc(dataBytes)]);
}

/** A folder of these files. */
export async function writeFolder(
  parent: string,
  name: string,
  files: Readonly<Record<string, Buffer | string>>,
): Promise<string> {
  const folder = path.join(parent, name);
  await mkdir(folder, { recursive: true });
  for (const [file, content] of Object.entries(files)) {
    await mkdir(path.dirname(path.join(folder, file)), { recursive: true });
    await writeFile(path.join(folder, file), content);
  }
  return folder;
}
