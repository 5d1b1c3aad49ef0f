// How a model's name table is written: a tree of what the model's weight records hold, each leaf saying which checkpoint
// keys it is made of and how large they are. Checks, counts and loading all walk the same tree.

/** One tensor of a checkpoint, as the file must hold it. */
export interface NamedTensor {
  readonly name: string;
  readonly shape: readonly number[];
}

/** Some rows of a stored matrix of `rows`: `block` of every `period`, from `offset` on. */
export interface RowPart {
  readonly rows: number;
  readonly offset: number;
  /** Where there is more than one block, a multiple of 4. */
  readonly block: number;
  readonly period: number;
}

/** A Linear: PyTorch's weight (columns, inputs) and bias (columns). */
export interface LinearNames {
  readonly kind: "linear";
  readonly weight: NamedTensor;
  readonly bias: NamedTensor | null;
  readonly inputs: number;
  readonly columns: number;
  /**
   * f32: stays so under every --dtype, and so does what is multiplied with it. f16: has no fewer bits than f16, because
   * embeddings are looked up in it, or because it is small and errors count much. Left out: as --dtype says.
   */
  readonly keeps?: "f32" | "f16";
  /** Where weight and bias hold more than this Linear: which of their rows it is made of, in order. */
  readonly part?: RowPart;
}

/** One Linear out of several of the same inputs, their columns side by side; all of them have a bias, or none. */
export interface StackedNames {
  readonly kind: "stacked";
  readonly parts: readonly LinearNames[];
}

/** A Norm: gain and bias (width). */
export interface NormNames {
  readonly kind: "norm";
  readonly gain: NamedTensor;
  readonly bias: NamedTensor;
  readonly eps: number;
}

/** An RmsNorm: gain (width). */
export interface RmsNormNames {
  readonly kind: "rms-norm";
  readonly gain: NamedTensor;
  readonly eps: number;
}

/** Rows of a (rows, width) tensor, the same one more than once perhaps: (picks, width) on the GPU, f32 under every --dtype. */
export interface PickedNames {
  readonly kind: "picked";
  readonly stored: NamedTensor;
  readonly picks: readonly number[];
}

/** A tensor that stays f32 under every --dtype; `shape` is the one on the GPU, of as many elements. */
export interface TableNames {
  readonly kind: "table";
  readonly stored: NamedTensor;
  readonly shape: readonly number[];
}

/**
 * Positions of a class token and a square grid of patches: (1 + from * from, width) in the file, (1 + to * to, width) on the
 * GPU, the grid resized; f32 under every --dtype. See models/interpolate-positions.ts.
 */
export interface GridNames {
  readonly kind: "grid";
  readonly stored: NamedTensor;
  readonly from: number;
  readonly to: number;
  readonly width: number;
}

/** What no checkpoint holds, because it follows from the settings; f32 under every --dtype. */
export interface ComputedNames {
  readonly kind: "computed";
  readonly name: string;
  readonly shape: readonly number[];
  readonly values: () => Float32Array;
}

export type NameLeaf = LinearNames | NormNames | RmsNormNames | PickedNames | TableNames | GridNames | ComputedNames;
export type NameTree = NameLeaf | StackedNames | readonly NameTree[] | { readonly [part: string]: NameTree };

export function linear(
  key: string,
  inputs: number,
  columns: number,
  options: { bias?: boolean; keeps?: "f32" | "f16"; part?: RowPart } = {},
): LinearNames {
  const rows = options.part?.rows ?? columns;
  return {
    kind: "linear",
    weight: { name: `${key}.weight`, shape: [rows, inputs] },
    bias: (options.bias ?? true) ? { name: `${key}.bias`, shape: [rows] } : null,
    inputs,
    columns,
    ...(options.keeps && { keeps: options.keeps }),
    ...(options.part && { part: options.part }),
  };
}

export function stacked(...parts: readonly LinearNames[]): StackedNames {
  return { kind: "stacked", parts };
}

/** A matrix of a row for every id: embeddings that are looked up, or a head. */
export function vocabularyLinear(key: string, width: number, vocabulary: number): LinearNames {
  return linear(key, width, vocabulary, { bias: false, keeps: "f16" });
}

/** Neighbouring columns of a Linear, and the first of the stored rows that they are. */
export interface RowRun {
  readonly column: number;
  readonly row: number;
  readonly count: number;
}

/** The columns [from, from + width) as runs of stored rows. */
export function rowRuns(part: RowPart | undefined, from: number, width: number): readonly RowRun[] {
  if (part === undefined) return [{ column: from, row: from, count: width }];
  const { offset, block, period } = part;
  const runs: RowRun[] = [];
  for (let column = from; column < from + width; ) {
    const inBlock = column % block;
    const count = Math.min(block - inBlock, from + width - column);
    runs.push({ column, row: offset + Math.floor(column / block) * period + inBlock, count });
    column += count;
  }
  return runs;
}

/** A convolution whose stride is its kernel: a Linear over unfolded patches (channels, height, width). */
export function patchLinear(
  key: string,
  channels: number,
  patch: number,
  columns: number,
  options: { bias?: boolean } = {},
): LinearNames {
  const plain = linear(key, channels * patch * patch, columns, options);
  return { ...plain, keeps: "f16", weight: { name: plain.weight.name, shape: [columns, channels, patch, patch] } };
}

export function norm(key: string, width: number, eps: number): NormNames {
  return {
    kind: "norm",
    gain: { name: `${key}.weight`, shape: [width] },
    bias: { name: `${key}.bias`, shape: [width] },
    eps,
  };
}

export function rmsNorm(key: string, width: number, eps: number): RmsNormNames {
  return { kind: "rms-norm", gain: { name: `${key}.weight`, shape: [width] }, eps };
}

export function picked(name: string, stored: readonly number[], picks: readonly number[]): PickedNames {
  return { kind: "picked", stored: { name, shape: stored }, picks };
}

export function table(name: string, stored: readonly number[], shape: readonly number[] = stored): TableNames {
  return { kind: "table", stored: { name, shape: stored }, shape };
}

/**
 * Positions of a class token and a square grid of `from` times `from` patches, for a grid of `to` times `to`.
 * @param leading dimensions of 1 in front of the file's shape
 */
export function gridPositions(
  name: string,
  { from, to, width }: { readonly from: number; readonly to: number; readonly width: number },
  leading: readonly 1[] = [],
): TableNames | GridNames {
  const tokens = from * from + 1;
  if (from === to) return table(name, [...leading, tokens, width], [tokens, width]);
  return { kind: "grid", stored: { name, shape: [...leading, tokens, width] }, from, to, width };
}

/** Patches along one side of a ViT's images: those that its positions were trained with, and those of this run. */
export function gridOf({
  imageSize,
  trainedSize,
  patchSize,
  width,
}: {
  readonly imageSize: number;
  readonly trainedSize: number;
  readonly patchSize: number;
  readonly width: number;
}) {
  return { from: Math.floor(trainedSize / patchSize), to: Math.floor(imageSize / patchSize), width };
}

/** @param values as many as the shape says, made when they are loaded */
export function computed(name: string, shape: readonly number[], values: () => Float32Array): ComputedNames {
  return { kind: "computed", name, shape, values };
}

/** `count` layers, made by index. */
export function layers<T>(count: number, make: (index: number) => T): readonly T[] {
  return Array.from({ length: count }, (_, index) => make(index));
}

export function isLeaf(tree: NameTree): tree is NameLeaf | StackedNames {
  return "kind" in tree && typeof tree.kind === "string";
}

/** The leaves of a tree, in order; what is stacked as the Linears that it is made of. */
export function leavesOf(tree: NameTree): readonly NameLeaf[] {
  if (isLeaf(tree)) return tree.kind === "stacked" ? tree.parts : [tree];
  return Object.values(tree as { readonly [part: string]: NameTree }).flatMap(leavesOf);
}

/** The checkpoint's tensors that a tree is made of, in order, each once. */
export function tensorsOf(tree: NameTree): readonly NamedTensor[] {
  const named = leavesOf(tree).flatMap((leaf): readonly NamedTensor[] => {
    if (leaf.kind === "linear") return leaf.bias ? [leaf.weight, leaf.bias] : [leaf.weight];
    if (leaf.kind === "norm") return [leaf.gain, leaf.bias];
    if (leaf.kind === "rms-norm") return [leaf.gain];
    if (leaf.kind === "computed") return [];
    return [leaf.stored];
  });
  return [...new Map(named.map((tensor) => [tensor.name, tensor])).values()];
}

/** What a whole checkpoint must and may hold. */
export interface NameTable {
  readonly required: readonly NamedTensor[];
  /** Copies of other tensors that some files hold as well; their shape is checked, their content is not used. */
  readonly tied: readonly NamedTensor[];
  /** Names of tensors that some files hold and nothing needs; their shape is not checked. */
  readonly unused?: readonly string[];
}

/** Buffers that some files hold; what they say follows from the configuration. */
const ignoredEndings = [".position_ids", ".rotary_emb.inv_freq"];

export function isIgnored(name: string): boolean {
  return ignoredEndings.some((ending) => name.endsWith(ending));
}
