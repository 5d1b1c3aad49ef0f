// Weights from a checkpoint's files onto the GPU: streamed in pieces, converted there, never written again.

import type { Gpu } from "../gpu/device.ts";
import type { Recorder } from "../gpu/recorder.ts";
import { type ElementType, elementCount, isPacked, type Tensor } from "../gpu/tensor.ts";
import { view } from "../gpu/view.ts";
import { convertPlain } from "../kernels/convert-plain.ts";
import { convertWeight, type SourceType } from "../kernels/convert-weight.ts";
import { type QuantizeNotice, quantizeWeight } from "../kernels/quantize-weight.ts";
import { selectRows } from "../kernels/select-rows.ts";
import type { Linear, Norm, RmsNorm, Segment, WeightType } from "../kernels/weights.ts";
import type { Checkpoint } from "../weights/checkpoint.ts";
import { WeightsError } from "../weights/errors.ts";
import { columnsOf, formOf, stackedRuns } from "../weights/names/stacked-rows.ts";
import {
  type ComputedNames,
  type GridNames,
  isLeaf,
  type LinearNames,
  type NamedTensor,
  type NameLeaf,
  type NameTree,
  type NormNames,
  type PickedNames,
  type RmsNormNames,
  type StackedNames,
  type TableNames,
} from "../weights/names/tensor-names.ts";
import { readPieces, readValues, type StoredTensor, type StoredType } from "../weights/safetensors.ts";
import { interpolatePositions } from "./interpolate-positions.ts";
import { largestPiece, matrixType, segmentColumns } from "./weight-sizes.ts";

/** What a name tree becomes: the same tree with weight records as leaves. */
export type Loaded<T> = T extends LinearNames | StackedNames
  ? Linear
  : T extends NormNames
    ? Norm
    : T extends RmsNormNames
      ? RmsNorm
      : T extends TableNames | PickedNames | GridNames | ComputedNames
        ? Tensor
        : T extends readonly (infer Each)[]
          ? readonly Loaded<Each>[]
          : { readonly [K in keyof T]: Loaded<T[K]> };

/** So many are filled, uploaded and converted at the same time: one is read while others are on the GPU. */
const slotsUnderWay = 3;

/** Pieces of files on their way together. */
interface Slot {
  readonly bytes: Uint8Array;
  readonly staging: Tensor;
  /** Bytes that are taken. */
  filled: number;
  readonly conversions: ((k: Recorder) => void)[];
  /** Until the GPU has done with it. */
  busy: Promise<void>;
}

/** Loads name trees of one checkpoint that was checked with expectTensors, and frees them again. */
export class WeightLoader {
  readonly #gpu: Gpu;
  readonly #checkpoint: Checkpoint;
  readonly #type: WeightType;
  readonly #onBytes: (bytes: number) => void;
  readonly #tensors: Tensor[] = [];
  readonly #slotBytes: number;
  /** Each reads one tensor into what was allocated for it; in the order of the trees. */
  readonly #reads: (() => Promise<void>)[] = [];
  /** Names of matrices that are quantized, and where their kernels tell which of them must not be: a number from 1 on. */
  readonly #quantized: string[] = [];
  #refused: Tensor | undefined;
  /** The first is being filled; those behind it are on the GPU, the oldest next. */
  readonly #slots: Slot[] = [];

  /**
   * @param type of matrices, unless their names say what they keep; biases, norms and tables are f32 always
   * @param onBytes told the bytes of each piece of a file that is on the GPU.
   */
  constructor(gpu: Gpu, checkpoint: Checkpoint, type: WeightType, onBytes: (bytes: number) => void = () => {}) {
    this.#gpu = gpu;
    this.#checkpoint = checkpoint;
    this.#type = type;
    this.#onBytes = onBytes;
    this.#slotBytes = largestPiece(gpu);
  }

  /**
   * Buffers for a tree, zeros until fill() is done. Recordings may bind them at once.
   * @param type where it is another one than the loader's
   * @throws KernelError when a matrix cannot be split below the binding limit, OutOfMemoryError
   */
  allocate<T extends NameTree>(tree: T, type: WeightType = this.#type): Loaded<T> {
    return this.#tree(tree, type) as Loaded<T>;
  }

  /**
   * Read, upload and convert what was allocated. Once.
   * @throws OutOfMemoryError, Error when a file changed while it was read, WeightsError when a matrix that becomes whole
   * numbers holds inf or NaN
   */
  async fill(): Promise<void> {
    try {
      for (const read of this.#reads.splice(0)) await read();
      await this.#settle();
    } finally {
      // Where one piece has failed others may be under way, in buffers that are freed next.
      await Promise.allSettled(this.#slots.map(({ busy }) => busy));
    }
    await this.#expectNoneRefused();
  }

  /** Both. */
  async load<T extends NameTree>(tree: T): Promise<Loaded<T>> {
    const loaded = this.allocate(tree);
    await this.fill();
    return loaded;
  }

  /** Free what only loading needs. */
  finish(): void {
    for (const { staging } of this.#slots.splice(0)) this.#gpu.free(staging);
    if (this.#refused) this.#gpu.free(this.#refused);
    this.#refused = undefined;
  }

  /** Free everything that was loaded. */
  release(): void {
    this.finish();
    for (const tensor of this.#tensors.splice(0)) this.#gpu.free(tensor);
  }

  #tree(tree: NameTree, type: WeightType): unknown {
    if (isLeaf(tree)) return this.#leaf(tree, type);
    if (Array.isArray(tree)) return (tree as readonly NameTree[]).map((part) => this.#tree(part, type));
    return Object.fromEntries(Object.entries(tree).map(([name, part]) => [name, this.#tree(part as NameTree, type)]));
  }

  #leaf(leaf: NameLeaf | StackedNames, type: WeightType): Linear | Norm | RmsNorm | Tensor {
    if (leaf.kind === "table") return this.#table(leaf.stored, leaf.shape);
    if (leaf.kind === "picked") return this.#picked(leaf);
    if (leaf.kind === "grid") return this.#grid(leaf);
    if (leaf.kind === "computed") return this.#computed(leaf);
    if (leaf.kind === "rms-norm") return { gain: this.#table(leaf.gain), eps: leaf.eps };
    if (leaf.kind === "norm") return { gain: this.#table(leaf.gain), bias: this.#table(leaf.bias), eps: leaf.eps };
    return this.#linear(leaf.kind === "stacked" ? leaf.parts : [leaf], type);
  }

  /** Matrices whose widths do not let them share a tensor get segments of their own. */
  #linear(parts: readonly LinearNames[], type: WeightType): Linear {
    const form = formOf(parts);
    const { inputs, bias } = form;
    const columns = columnsOf(parts);
    const together = parts.length === 1 || parts.every((part) => part.columns % 4 === 0);
    const groups = together ? [parts] : parts.map((part) => [part]);
    let before = 0;
    const segments = groups.flatMap((group) => {
      const first = before;
      before += columnsOf(group);
      return this.#matrix(group, matrixType(form, type)).map((segment) => ({ ...segment, from: first + segment.from }));
    });
    return { segments, bias: bias && this.#biases(parts), inputs, columns };
  }

  #biases(parts: readonly LinearNames[]): Tensor {
    const tensor = this.#alloc(parts.map(({ bias }) => bias?.name).join(" "), [columnsOf(parts)], "f32");
    for (const { linear, column, row, count } of stackedRuns(parts, 0, columnsOf(parts))) {
      const { bias } = linear;
      if (bias) this.#reads.push(() => this.#values(bias, tensor, { first: column, row, count }));
    }
    return tensor;
  }

  /** A tensor of one binding, as f32. */
  #table(named: NamedTensor, shape: readonly number[] = named.shape): Tensor {
    const tensor = this.#alloc(named.name, shape, "f32");
    this.#reads.push(() => this.#values(named, tensor));
    return tensor;
  }

  /** `count` values of a file from its `row`-th on, from `first` on in the tensor. */
  async #values(
    { name }: NamedTensor,
    tensor: Tensor,
    { first, row, count } = { first: 0, row: 0, count: elementCount(tensor.shape) },
  ): Promise<void> {
    const stored = this.#stored(name);
    const type = sourceType(stored);
    const elementBytes = type === "f32" ? 4 : 2;
    for await (const { at, bytes } of this.#pieces(someRows(stored, row, count, elementBytes), elementBytes)) {
      const values = { type, count: bytes.length / elementBytes };
      this.#stage(bytes, (k, words) => convertPlain(k, { bytes: words, ...values }, tensor, first + at / elementBytes));
    }
  }

  /** Rows of a small tensor, in the order of the picks. */
  #picked({ stored, picks }: PickedNames): Tensor {
    const tensor = this.#alloc(stored.name, [picks.length, stored.shape[1] ?? 0], "f32");
    this.#reads.push(async () => {
      const whole = this.#gpu.alloc(stored.name, stored.shape, "f32");
      const rows = this.#gpu.alloc("picks", [picks.length], "u32");
      try {
        await this.#values(stored, whole);
        await this.#settle();
        await this.#gpu.upload(rows, new Uint8Array(Uint32Array.from(picks).buffer));
        const list = await this.#gpu.record("pick", (k) => selectRows(k, whole, rows, tensor));
        await this.#gpu.submit([list]);
        list.destroy();
      } finally {
        for (const temporary of [rows, whole]) this.#gpu.free(temporary);
      }
    });
    return tensor;
  }

  /** Positions of another grid than the file's; resized here and not on the GPU, for it is done once and is a megabyte or two. */
  #grid({ stored, from, to, width }: GridNames): Tensor {
    const tensor = this.#alloc(stored.name, [1 + to * to, width], "f32");
    this.#reads.push(async () => {
      const trained = await readValues(this.#stored(stored.name));
      const resized = interpolatePositions(trained, { from, to, width });
      await this.#gpu.upload(tensor, new Uint8Array(resized.buffer));
      this.#onBytes(resized.byteLength);
    });
    return tensor;
  }

  #computed({ name, shape, values }: ComputedNames): Tensor {
    const tensor = this.#alloc(name, shape, "f32");
    this.#reads.push(async () => {
      const { buffer, byteOffset, byteLength: bytes } = values();
      await this.#gpu.upload(tensor, new Uint8Array(buffer, byteOffset, bytes));
    });
    return tensor;
  }

  /**
   * PyTorch's (columns, inputs), several side by side, as segments of (inputs, padded width): transposed and converted, or
   * quantized, by a kernel.
   */
  #matrix(parts: readonly LinearNames[], type: WeightType): Segment[] {
    const { inputs } = formOf(parts);
    const columns = columnsOf(parts);
    const name = parts.map(({ weight }) => weight.name).join(" ");
    const most = segmentColumns(this.#gpu, name, inputs, columns, type);
    const quantized = isPacked(type);
    const notices = new Map(parts.map((part) => [part, quantized ? this.#noticeFor(part.weight.name) : undefined]));
    const segments: Segment[] = [];
    for (let from = 0; from < columns; from += most) {
      const width = Math.min(most, columns - from);
      const weight = this.#alloc(name, [inputs, Math.ceil(width / 4) * 4], type);
      segments.push({ weight, from, width });
      for (const { linear, column, row, count } of stackedRuns(parts, from, width)) {
        const stored = this.#stored(linear.weight.name);
        const rowBytes = inputs * (sourceType(stored) === "f32" ? 4 : 2);
        const rows = someRows(stored, row, count, rowBytes);
        const notice = notices.get(linear);
        this.#reads.push(() => this.#columns(rows, inputs, weight, column - from, notice));
      }
    }
    return segments;
  }

  /** Rows of a file become the columns of one segment, from `first` on. */
  async #columns(
    rowsOfFile: StoredTensor,
    inputs: number,
    weight: Tensor,
    first: number,
    notice: QuantizeNotice | undefined,
  ): Promise<void> {
    const type = sourceType(rowsOfFile);
    const rowBytes = inputs * (type === "f32" ? 4 : 2);
    // Every piece but the last is a multiple of 4 columns.
    for await (const { at, bytes } of this.#pieces(rowsOfFile, 4 * rowBytes)) {
      const rows = bytes.length / rowBytes;
      const column = first + at / rowBytes;
      this.#stage(bytes, (k, words) => {
        const piece = { bytes: words, type, rows, inputs };
        if (notice) quantizeWeight(k, piece, weight, column, notice);
        else convertWeight(k, piece, weight, column);
      });
    }
  }

  /** Where a kernel tells that a matrix holds inf or NaN: whole numbers have neither. */
  #noticeFor(name: string): QuantizeNotice {
    this.#refused ??= this.#gpu.alloc("refused", [1], "u32");
    return { refused: this.#refused, number: this.#quantized.push(name) };
  }

  /** @throws WeightsError */
  async #expectNoneRefused(): Promise<void> {
    if (this.#refused === undefined) return;
    const [number = 0] = new Uint32Array(await this.#gpu.read(this.#refused));
    const name = this.#quantized[number - 1];
    if (name === undefined) return;
    throw new WeightsError(this.#checkpoint.ref, [
      `${name}: expected finite numbers under --dtype int8 and int4, got inf or NaN; use --dtype f16 or f32`,
    ]);
  }

  /** Bytes of a tensor, each piece in the memory of the slot that is being filled. */
  #pieces(tensor: StoredTensor, rowBytes: number) {
    return readPieces(tensor, rowBytes, this.#slotBytes, (bytes) => this.#room(bytes));
  }

  /** Room for a piece beside the others of a slot, or in the next one. */
  async #room(bytes: number): Promise<Uint8Array> {
    if ((this.#slots[0]?.filled ?? 0) + bytes > this.#slotBytes) await this.#flush();
    const slot = this.#slots[0] ?? this.#newSlot();
    return slot.bytes.subarray(slot.filled, slot.filled + bytes);
  }

  /** Keep the piece that was read into #room(), and remember what is to be made of it. */
  #stage(bytes: Uint8Array, convert: (k: Recorder, words: Tensor) => void): void {
    const slot = this.#slots[0] as Slot;
    const from = slot.filled;
    slot.filled = Math.ceil((from + bytes.length) / 256) * 256;
    const words = [Math.ceil(bytes.length / 4)];
    slot.conversions.push((k) => convert(k, view(slot.staging, words, from)));
  }

  /** Hand the slot that is being filled to the GPU, and take another one, which may have to be waited for. */
  async #flush(): Promise<void> {
    const [full] = this.#slots;
    if (full === undefined || full.conversions.length === 0) return;
    full.busy = this.#convert(full);
    // Whoever waits for the slot learns of a failure.
    full.busy.catch(() => {});
    this.#slots.push(...this.#slots.splice(0, 1));
    if (this.#slots.length < slotsUnderWay) this.#newSlot();
    await this.#slots[0]?.busy;
  }

  /** All that was read is on the GPU and converted. */
  async #settle(): Promise<void> {
    await this.#flush();
    for (const { busy } of this.#slots) await busy;
  }

  async #convert(slot: Slot): Promise<void> {
    const filled = Math.min(slot.filled, this.#slotBytes);
    const conversions = slot.conversions.splice(0);
    await this.#gpu.upload(slot.staging, slot.bytes.subarray(0, filled));
    const list = await this.#gpu.record("load", (k) => {
      for (const convert of conversions) convert(k);
    });
    await this.#gpu.submit([list]);
    list.destroy();
    slot.filled = 0;
    this.#onBytes(filled);
  }

  #newSlot(): Slot {
    const staging = this.#gpu.alloc("weights on their way", [this.#slotBytes / 4], "u32");
    const bytes = new Uint8Array(this.#slotBytes);
    const slot: Slot = { bytes, staging, filled: 0, conversions: [], busy: Promise.resolve() };
    this.#slots.unshift(slot);
    return slot;
  }

  #stored(name: string): StoredTensor {
    const stored = this.#checkpoint.tensors.get(name);
    if (stored === undefined) throw new Error(`load: expected ${name} to have been checked, got no such tensor`);
    return stored;
  }

  #alloc(name: string, shape: readonly number[], type: ElementType): Tensor {
    const tensor = this.#gpu.alloc(name, shape, type);
    this.#tensors.push(tensor);
    return tensor;
  }
}

/** `count` rows of a stored tensor, from `row` on. */
function someRows(stored: StoredTensor, row: number, count: number, rowBytes: number): StoredTensor {
  return { ...stored, start: stored.start + row * rowBytes, bytes: count * rowBytes };
}

/** @throws WeightsError for a dtype that expectTensors would have refused */
function sourceType({ name, dtype }: StoredTensor): SourceType {
  const type = ({ F32: "f32", F16: "f16", BF16: "bf16" } as Partial<Record<StoredType, SourceType>>)[dtype];
  if (type === undefined) throw new WeightsError(name, [`expected F32, F16 or BF16, got ${dtype}`]);
  return type;
}
