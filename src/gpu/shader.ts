// What a WGSL file declares: its bindings, Params, overrides, and the opening lines whose values the host may set.

import { KernelError } from "./errors.ts";

export type ScalarType = "u32" | "i32" | "f32";

export interface Binding {
  readonly name: string;
  readonly binding: number;
  readonly kind: "input" | "output" | "params";
}

export interface ShaderInterface {
  readonly shader: string;
  readonly source: string;
  readonly bindings: readonly Binding[];
  /** Fields of `struct Params` in order; each is four bytes. */
  readonly params: readonly { readonly name: string; readonly type: ScalarType }[];
  readonly overrides: ReadonlySet<string>;
  /** Opening `const` and `alias` lines: name -> where its value stands in `source`, and the suffix of a number. */
  readonly openingValues: ReadonlyMap<
    string,
    { readonly start: number; readonly end: number; readonly suffix: string }
  >;
  readonly entryPoint: string;
}

/** Comments become spaces, so that offsets and lines stay. */
function blankComments(source: string): string {
  return source.replace(/\/\*[\s\S]*?\*\/|\/\/[^\n]*/g, (comment) => comment.replace(/[^\n]/g, " "));
}

/**
 * Read a shader's declarations.
 * @throws KernelError for anything that the host does not know how to bind.
 */
export function parseShader(shader: string, source: string): ShaderInterface {
  const where = `shaders/${shader}.wgsl`;
  const code = blankComments(source);
  const bindings: Binding[] = [];
  for (const match of code.matchAll(/((?:@\w+\s*\([^)]*\)\s*)+)var\s*<\s*([\w\s,]+?)\s*>\s*(\w+)\s*:/g)) {
    const [, attributes = "", space = "", name = ""] = match;
    if (!/@group\s*\(\s*0u?\s*\)/.test(attributes)) throw new KernelError(`${where}: expected ${name} in @group(0)`);
    const binding = Number(/@binding\s*\(\s*(\d+)u?\s*\)/.exec(attributes)?.[1] ?? Number.NaN);
    const kind = { "storage,read": "input", storage: "input", "storage,read_write": "output", uniform: "params" }[
      space.replace(/\s/g, "")
    ] as Binding["kind"] | undefined;
    if (kind === undefined || Number.isNaN(binding)) {
      throw new KernelError(`${where}: expected ${name} to be storage or uniform at a @binding, got var<${space}>`);
    }
    if (kind === "params" && name !== "params") {
      throw new KernelError(`${where}: expected the one uniform to be named params, got ${name}`);
    }
    bindings.push({ name, binding, kind });
  }
  const params: { name: string; type: ScalarType }[] = [];
  const struct = /struct\s+Params\s*\{([^}]*)\}/.exec(code)?.[1];
  if (struct === undefined && bindings.some((each) => each.kind === "params")) {
    throw new KernelError(`${where}: expected \`struct Params\` for its uniform, found none`);
  }
  for (const field of (struct ?? "").split(/[,;]/)) {
    if (field.trim() === "") continue;
    const [, name = "", type = ""] = /^\s*(\w+)\s*:\s*(\w+)\s*$/.exec(field) ?? [];
    if (type !== "u32" && type !== "i32" && type !== "f32") {
      throw new KernelError(`${where}: expected fields of Params to be u32, i32 or f32, got \`${field.trim()}\``);
    }
    params.push({ name, type });
  }
  const overrides = new Set<string>();
  for (const match of code.matchAll(/\boverride\s+(\w+)/g)) overrides.add(match[1] ?? "");
  const entryPoints = [...code.matchAll(/@compute[\s\S]*?\bfn\s+(\w+)/g)].map((match) => match[1] ?? "");
  const [entryPoint] = entryPoints;
  if (entryPoint === undefined || entryPoints.length > 1) {
    throw new KernelError(`${where}: expected one @compute entry point, got ${entryPoints.length}`);
  }
  return { shader, source, bindings, params, overrides, openingValues: openingValues(code), entryPoint };
}

/** `const NAME = value;` and `alias NAME = type;` lines above the first declaration of any other kind. */
function openingValues(code: string): ShaderInterface["openingValues"] {
  const found = new Map<string, { start: number; end: number; suffix: string }>();
  const declaration =
    /\s*(?:(?:enable|requires|diagnostic|override)\b[^;]*;|(const|alias)\s+(\w+)\s*(?::[^=;]*)?=\s*([^;]*?)\s*;)/dy;
  for (let match = declaration.exec(code); match; match = declaration.exec(code)) {
    const [start = 0, end = 0] = match.indices?.[3] ?? [];
    const name = match[2];
    if (name === undefined) continue;
    const suffix = /^[\d.]+([uifh])$/.exec(match[3] ?? "")?.[1] ?? "";
    found.set(name, { start, end, suffix });
  }
  return found;
}

/** The source with opening values replaced, and the rest of `constants` as overrides. */
export function specialise(
  declared: ShaderInterface,
  constants: Readonly<Record<string, number | string>>,
): { readonly code: string; readonly overrides: Record<string, number> } {
  const where = `shaders/${declared.shader}.wgsl`;
  const overrides: Record<string, number> = {};
  const edits: { start: number; end: number; text: string }[] = [];
  for (const [name, value] of Object.entries(constants)) {
    const place = declared.openingValues.get(name);
    if (place) {
      const text = typeof value === "number" ? `${value}${place.suffix}` : value;
      if (!/^[\w.<>, ()+-]+$/.test(text))
        throw new KernelError(`${where}: expected a value for ${name}, got \`${text}\``);
      edits.push({ ...place, text });
    } else if (declared.overrides.has(name) && typeof value === "number") {
      overrides[name] = value;
    } else {
      const known = [...declared.openingValues.keys(), ...declared.overrides].join(", ");
      throw new KernelError(`${where}: expected constants among (${known}), got ${name} = ${value}`);
    }
  }
  edits.sort((a, b) => b.start - a.start);
  let code = declared.source;
  for (const { start, end, text } of edits) code = code.slice(0, start) + text + code.slice(end);
  return { code, overrides };
}

/** @throws KernelError naming what is missing and what is not declared. */
export function checkNames(where: string, what: string, expected: readonly string[], given: readonly string[]): void {
  const missing = expected.filter((name) => !given.includes(name));
  const unexpected = given.filter((name) => !expected.includes(name));
  if (missing.length === 0 && unexpected.length === 0) return;
  const parts = [
    missing.length > 0 ? `missing ${missing.join(", ")}` : "",
    unexpected.length > 0 ? `unexpected ${unexpected.join(", ")}` : "",
  ].filter((part) => part !== "");
  throw new KernelError(`${where}: expected ${what} (${expected.join(", ")}), got ${parts.join("; ")}`);
}

/** Params as the bytes of the shader's uniform block (16-byte multiple). */
export function packParams(declared: ShaderInterface, values: Readonly<Record<string, number>>): Uint8Array {
  const bytes = new Uint8Array(Math.ceil((declared.params.length * 4) / 16) * 16);
  const view = new DataView(bytes.buffer);
  declared.params.forEach(({ name, type }, i) => {
    const value = values[name] ?? Number.NaN;
    const [low, high] = type === "u32" ? [0, 0xffffffff] : [-0x80000000, 0x7fffffff];
    if (type === "f32" ? Number.isNaN(value) : !Number.isInteger(value) || value < low || value > high) {
      throw new KernelError(`shaders/${declared.shader}.wgsl: expected params.${name} to be ${type}, got ${value}`);
    }
    if (type === "f32") view.setFloat32(i * 4, value, true);
    else if (type === "u32") view.setUint32(i * 4, value, true);
    else view.setInt32(i * 4, value, true);
  });
  return bytes;
}
