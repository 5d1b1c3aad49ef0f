// WebAssembly written by hand: expressions that put one value on the stack, statements that put none, and a module around
// them. Only the instructions that src/search uses. Opcodes: https://webassembly.github.io/spec/core/binary/

/** What Node has of WebAssembly and its types leave out. */
declare const WebAssembly: {
  readonly Memory: new (size: { readonly initial: number }) => WasmMemory;
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (module: object, imports: object) => { readonly exports: Readonly<Record<string, unknown>> };
};

export interface WasmMemory {
  /** Another one after grow(). */
  readonly buffer: ArrayBuffer;
  /** @param pages of 64 KiB */
  grow(pages: number): number;
}

const pageBytes = 65536;

/** A memory of at least so many bytes. */
export function wasmMemory(bytes: number): WasmMemory {
  return new WebAssembly.Memory({ initial: Math.ceil(bytes / pageBytes) });
}

/** Bytes of instructions. */
export type Code = readonly number[];

export const valueTypes = { i32: 0x7f, f32: 0x7d, v128: 0x7b } as const;
export type ValueType = keyof typeof valueTypes;

/** Unsigned LEB128. */
function unsigned(value: number): number[] {
  const bytes: number[] = [];
  for (let rest = value; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) return [...bytes, rest];
    bytes.push((rest % 128) + 128);
  }
}

/** Signed LEB128. */
function signed(value: number): number[] {
  const bytes: number[] = [];
  for (let rest = value; ; rest >>= 7) {
    if (rest >= -64 && rest < 64) return [...bytes, rest & 127];
    bytes.push((rest & 127) | 128);
  }
}

const vector = (opcode: number, ...operands: Code[]): Code => [...operands.flat(), 0xfd, ...unsigned(opcode)];
const binary = (opcode: number) => (a: Code, b: Code) => vector(opcode, a, b);
const unary = (opcode: number) => (a: Code) => vector(opcode, a);
/** Alignment that is promised (none: 1 byte), offset. */
const at = (offset: number): number[] => [0, ...unsigned(offset)];

/** A parameter or local variable. */
export interface Variable {
  readonly get: Code;
  set(value: Code): Code;
}

export const i32 = {
  const: (value: number): Code => [0x41, ...signed(value)],
  add: (a: Code, b: Code): Code => [...a, ...b, 0x6a],
  mul: (a: Code, b: Code): Code => [...a, ...b, 0x6c],
  lessThan: (a: Code, b: Code): Code => [...a, ...b, 0x49],
  store: (address: Code, value: Code, offset = 0): Code => [...address, ...value, 0x36, ...at(offset)],
};

export const f32 = {
  const: (value: number): Code => [0x43, ...new Uint8Array(Float32Array.of(value).buffer)],
  max: (a: Code, b: Code): Code => [...a, ...b, 0x97],
  store: (address: Code, value: Code, offset = 0): Code => [...address, ...value, 0x38, ...at(offset)],
};

export const v128 = {
  load: (address: Code, offset = 0): Code => [...vector(0x00, address), ...at(offset)],
  /** Eight bytes into the lower half, zeros above. */
  loadHalf: (address: Code, offset = 0): Code => [...vector(0x5d, address), ...at(offset)],
  and: binary(0x4e),
};

export const i8x16 = {
  splat: unary(0x0f),
  add: binary(0x6e),
  /** table[index] of each lane. */
  swizzle: (table: Code, indices: Code): Code => vector(0x0e, table, indices),
};

export const i16x8 = {
  add: binary(0x8e),
  sub: binary(0x91),
  shiftLeft: binary(0x8b),
  shiftRight: binary(0x8d),
};

export const i32x4 = {
  splat: unary(0x11),
  add: binary(0xae),
  shiftLeft: binary(0xab),
  /** Products of eight signed 16-bit lanes, neighbours added. */
  dot: binary(0xba),
  extendLow: unary(0xa9),
  extendHigh: unary(0xaa),
  lane: (a: Code, lane: number): Code => [...vector(0x1b, a), lane],
};

export const f32x4 = {
  splat: unary(0x13),
  add: binary(0xe4),
  mul: binary(0xe6),
  /** b where a < b, else a. */
  larger: binary(0xeb),
  ofInts: unary(0xfb),
  lane: (a: Code, lane: number): Code => [...vector(0x1f, a), lane],
};

/** for (counter = 0; counter < end; counter += step) body, at least once. */
export function loop(counter: Variable, end: Code, step: number, body: Code): Code {
  const next = counter.set(i32.add(counter.get, i32.const(step)));
  const again = [...i32.lessThan(counter.get, end), 0x0d, 0];
  return [...counter.set(i32.const(0)), 0x03, 0x40, ...body, ...next, ...again, 0x0b];
}

/** A function without results. Variables are made while it is written. */
export class WasmFunction<Parameter extends string> {
  readonly #parameters: ValueType[];
  readonly #locals: ValueType[] = [];
  readonly parameters: Readonly<Record<Parameter, Variable>>;

  constructor(parameters: Readonly<Record<Parameter, ValueType>>) {
    const entries = Object.entries(parameters) as [Parameter, ValueType][];
    this.#parameters = entries.map(([, type]) => type);
    this.parameters = Object.fromEntries(entries.map(([name], i) => [name, variable(i)])) as Record<
      Parameter,
      Variable
    >;
  }

  local(type: ValueType): Variable {
    this.#locals.push(type);
    return variable(this.#parameters.length + this.#locals.length - 1);
  }

  locals<const Name extends string>(type: ValueType, names: readonly Name[]): Readonly<Record<Name, Variable>> {
    return Object.fromEntries(names.map((name) => [name, this.local(type)])) as Record<Name, Variable>;
  }

  /** The function, compiled, over this memory. Arguments in the order of the parameters. */
  compile(body: Code, memory: WasmMemory): (...values: number[]) => void {
    const vectorOf = (items: readonly Code[]) => [...unsigned(items.length), ...items.flat()];
    const section = (id: number, items: readonly Code[]) => {
      const content = vectorOf(items);
      return [id, ...unsigned(content.length), ...content];
    };
    const name = (text: string) => vectorOf([...Buffer.from(text)].map((byte) => [byte]));
    const locals = this.#locals.map((type) => [1, valueTypes[type]]);
    const code = [...vectorOf(locals), ...body, 0x0b];
    const bytes = [
      ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
      ...section(1, [[0x60, ...vectorOf(this.#parameters.map((type) => [valueTypes[type]])), 0]]),
      ...section(2, [[...name("env"), ...name("memory"), 0x02, 0x00, 0]]),
      ...section(3, [[0]]),
      ...section(7, [[...name("run"), 0x00, 0]]),
      ...section(10, [[...unsigned(code.length), ...code]]),
    ];
    const { run } = new WebAssembly.Instance(new WebAssembly.Module(Uint8Array.from(bytes)), { env: { memory } })
      .exports;
    return run as (...values: number[]) => void;
  }
}

function variable(place: number): Variable {
  return {
    get: [0x20, ...unsigned(place)],
    set: (value) => [...value, 0x21, ...unsigned(place)],
  };
}
