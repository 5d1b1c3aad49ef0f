// What our kernels compute, as ONNX graphs for the peer: one operator in the forms that a runtime may be given it in, and
// whole layers. Random constants have the seeds that ours.ts gives the same weights.

import { groupSize } from "../../src/gpu/tensor.ts";
import { elementTypes, type OnnxConstant, type OnnxGraph, type OnnxNode } from "./onnx-model.ts";
import {
  type AttentionShape,
  decodeMean,
  inputValues,
  keyScale,
  type LinearShape,
  type OptShape,
  quantizedScale,
  seeds,
  type VitShape,
} from "./shapes.ts";

type Type = OnnxGraph["type"];

/** A way to have the peer do it. */
export interface PeerForm {
  /** Names the setting in the report. */
  readonly name: string;
  readonly graph: OnnxGraph;
}

/** A graph that grows by operators; each returns the name of what it makes. */
class Growing {
  readonly constants: OnnxConstant[] = [];
  readonly nodes: OnnxNode[] = [];

  op(op: string, inputs: readonly string[], more: Pick<OnnxNode, "domain" | "attributes"> = {}, outputs = 1): string[] {
    const made = Array.from({ length: outputs }, (_, i) => `${op}-${this.nodes.length}-${i}`);
    this.nodes.push({ op, inputs, outputs: made, ...more });
    return made;
  }

  one(op: string, inputs: readonly string[], more: Pick<OnnxNode, "domain" | "attributes"> = {}): string {
    return this.op(op, inputs, more)[0] as string;
  }

  random(shape: readonly number[], seed: number, scale: number, mean = 0): string {
    const name = `constant-${this.constants.length}`;
    this.constants.push({ name, shape, seed, scale, mean });
    return name;
  }

  integers(integers: readonly number[]): string {
    const name = `constant-${this.constants.length}`;
    this.constants.push({ name, integers });
    return name;
  }

  /** x·W + b, as MatMul and Add or as one Gemm. */
  linear(x: string, { inputs, columns, seed }: LinearShape, op: "MatMul" | "Gemm"): string {
    const weight = this.random([inputs, columns], seed, seeds.weightScale(inputs));
    const bias = this.random([columns], seed + 1, seeds.biasScale);
    if (op === "Gemm") return this.one("Gemm", [x, weight, bias]);
    return this.one("Add", [this.one("MatMul", [x, weight]), bias]);
  }

  /** x·W + b of whole numbers; see quantizedScale. */
  quantized(x: string, { inputs, columns, seed }: LinearShape, bits: 4 | 8, level: number): string {
    const groups = inputs / groupSize;
    const weight = `constant-${this.constants.length}`;
    this.constants.push({ name: weight, bytes: [columns, groups, (groupSize * bits) / 8], seed });
    const scales = this.random([columns * groups], 0, 0, quantizedScale(inputs, bits));
    const attributes = { K: inputs, N: columns, bits, block_size: groupSize, accuracy_level: level };
    const y = this.one("MatMulNBits", [x, weight, scales], { domain: "com.microsoft", attributes });
    return this.one("Add", [y, this.random([columns], seed + 1, seeds.biasScale)]);
  }

  norm(x: string, width: number, seed: number): string {
    const gain = this.random([width], seed, seeds.gainScale, 1);
    const bias = this.random([width], seed + 1, seeds.biasScale);
    return this.one("LayerNormalization", [x, gain, bias], { attributes: { axis: -1, epsilon: { float: seeds.eps } } });
  }

  /** softmax(scale·q·kᵀ)·v of (1, tokens, heads * headWidth), in one operator. */
  fusedAttention(
    q: string,
    k: string,
    v: string,
    { heads, headWidth }: Pick<AttentionShape, "heads" | "headWidth">,
  ): string {
    const attributes = { num_heads: heads, scale: { float: headWidth ** -0.5 } };
    return this.one("MultiHeadAttention", [q, k, v], { domain: "com.microsoft", attributes });
  }

  /** The same, computed in f32 between values in f16. */
  widenedAttention(q: string, k: string, v: string, shape: Pick<AttentionShape, "heads" | "headWidth">): string {
    const cast = (x: string, type: Type) => this.one("Cast", [x], { attributes: { to: elementTypes[type] } });
    return cast(this.fusedAttention(cast(q, "f32"), cast(k, "f32"), cast(v, "f32"), shape), "f16");
  }

  /** The same in operators of ONNX itself. */
  plainAttention(q: string, k: string, v: string, { heads, headWidth }: Pick<AttentionShape, "heads" | "headWidth">) {
    const split = this.integers([1, -1, heads, headWidth]);
    const part = (x: string, perm: readonly number[]) =>
      this.one("Transpose", [this.one("Reshape", [x, split])], { attributes: { perm } });
    const root = this.random([1], 0, 0, headWidth ** -0.5);
    const scores = this.one("MatMul", [this.one("Mul", [part(q, [0, 2, 1, 3]), root]), part(k, [0, 2, 3, 1])]);
    const weights = this.one("Softmax", [scores], { attributes: { axis: -1 } });
    const mixed = this.one("MatMul", [weights, part(v, [0, 2, 1, 3])]);
    const joined = this.one("Transpose", [mixed], { attributes: { perm: [0, 2, 1, 3] } });
    return this.one("Reshape", [joined, this.integers([1, -1, heads * headWidth])]);
  }

  finish(type: Type, shape: readonly number[], result: string): OnnxGraph {
    const { constants, nodes } = this;
    return {
      type,
      input: { name: "x", shape, ...inputValues },
      constants,
      nodes,
      result: { name: result, rank: shape.length },
    };
  }
}

/** Types in which the peer may compute what has these weights: with f16 it may prefer f32. */
function typesFor(type: Type): readonly Type[] {
  return type === "f16" ? ["f16", "f32"] : ["f32"];
}

/** x (rows, inputs) through one linear. */
export function linearForms(rows: number, shape: LinearShape, type: Type): PeerForm[] {
  const form = (computed: Type, op: "MatMul" | "Gemm"): PeerForm => {
    const graph = new Growing();
    return {
      name: `${op} ${computed}`,
      graph: graph.finish(computed, [rows, shape.inputs], graph.linear("x", shape, op)),
    };
  };
  const others: PeerForm[] = type === "f16" ? [form("f32", "MatMul")] : [];
  return [form(type, "MatMul"), form(type, "Gemm"), ...others];
}

/** One row through a matrix of whole numbers with a scale for 32 inputs; at level 4 the peer may round x to 8 bits. */
export function quantizedForms(shape: LinearShape, type: "int8" | "int4"): PeerForm[] {
  const bits = type === "int8" ? 8 : 4;
  return typesFor("f16").flatMap((computed) =>
    [0, 4].map((level) => {
      const graph = new Growing();
      const y = graph.quantized("x", shape, bits, level);
      return {
        name: `MatMulNBits ${computed}${level === 4 ? ", level 4" : ""}`,
        graph: graph.finish(computed, [1, shape.inputs], y),
      };
    }),
  );
}

/**
 * x (1, queryTokens, width) attends `repeats` times to the same keys and values.
 * @param halfFused whether the peer's one operator for it may be tried in f16: for several queries it does not come back on
 * lavapipe 25.0
 */
export function attentionForms(shape: AttentionShape, repeats: number, halfFused: boolean): PeerForm[] {
  const width = shape.heads * shape.headWidth;
  const form = (type: Type, kind: "fused" | "plain"): PeerForm => {
    const graph = new Growing();
    const constant = (seed: number, scale: number) =>
      graph.random([1, shape.keyTokens, width], seed, scale, decodeMean);
    const [keys, values] = [constant(seeds.keys, keyScale), constant(seeds.values, 1)];
    let x = "x";
    for (let i = 0; i < repeats; i++) {
      x =
        kind === "fused" ? graph.fusedAttention(x, keys, values, shape) : graph.plainAttention(x, keys, values, shape);
    }
    return {
      name: `${kind === "fused" ? "MultiHeadAttention" : "plain operators"} ${type}`,
      graph: graph.finish(type, [1, shape.queryTokens, width], x),
    };
  };
  return [form("f32", "fused"), form("f32", "plain"), ...(halfFused ? [form("f16", "fused")] : [])];
}

/** x (rows, width), normalised `repeats` times. */
export function normForms(rows: number, width: number, repeats: number): PeerForm[] {
  return typesFor("f16").map((type) => {
    const graph = new Growing();
    let x = "x";
    for (let i = 0; i < repeats; i++) x = graph.norm(x, width, seeds.norm + 10 * i);
    return { name: `LayerNormalization ${type}`, graph: graph.finish(type, [rows, width], x) };
  });
}

/** One block of ViT-g over x (1, tokens, width). @param halfFused see attentionForms */
export function vitLayerForms(shape: VitShape, type: Type, halfFused: boolean): PeerForm[] {
  const { tokens, width, heads } = shape;
  const form = (computed: Type, attention: "fused" | "widened" | "plain"): PeerForm => {
    const graph = new Growing();
    const parts = shape.linears;
    const fused = graph.linear(graph.norm("x", width, seeds.norm), parts.qkv, "MatMul");
    const thirds = graph.op("Split", [fused], { attributes: { axis: -1, num_outputs: 3 } }, 3);
    const [q, k, v] = thirds as [string, string, string];
    const sizes = { heads, headWidth: width / heads };
    const mixed = graph[`${attention}Attention`](q, k, v, sizes);
    const attended = graph.one("Add", [graph.linear(mixed, parts.projection, "MatMul"), "x"]);
    const hidden = graph.linear(graph.norm(attended, width, seeds.norm + 10), parts.fc1, "MatMul");
    const active = graph.one("Gelu", [hidden], { domain: "com.microsoft" });
    const y = graph.one("Add", [graph.linear(active, parts.fc2, "MatMul"), attended]);
    const name = `whole layer ${computed}${{ fused: "", widened: ", attention f32", plain: ", plain attention" }[attention]}`;
    return { name, graph: graph.finish(computed, [1, tokens, width], y) };
  };
  const f32 = [form("f32", "plain"), form("f32", "fused")];
  if (type === "f32") return f32;
  return [form("f16", "plain"), form("f16", "widened"), ...f32, ...(halfFused ? [form("f16", "fused")] : [])];
}

/** One block of OPT for one new token, x (1, 1, width), behind `cache` earlier ones whose keys and values are constants. */
export function optLayerForms(shape: OptShape, type: Type): PeerForm[] {
  const { width, heads, cached, linears } = shape;
  return typesFor(type).map((computed) => {
    const graph = new Growing();
    const normed = graph.norm("x", width, seeds.norm);
    const [q, k, v] = [linears.query, linears.key, linears.value].map((each) =>
      graph.linear(normed, each, "MatMul"),
    ) as [string, string, string];
    const behind = (seed: number, scale: number, added: string) => {
      const past = graph.random([1, cached, width], seed, scale, decodeMean);
      return graph.one("Concat", [past, added], { attributes: { axis: 1 } });
    };
    const mixed = graph.fusedAttention(q, behind(seeds.keys, keyScale, k), behind(seeds.values, 1, v), {
      heads,
      headWidth: width / heads,
    });
    const attended = graph.one("Add", [graph.linear(mixed, linears.out, "MatMul"), "x"]);
    const hidden = graph.linear(graph.norm(attended, width, seeds.norm + 10), linears.fc1, "MatMul");
    const y = graph.one("Add", [graph.linear(graph.one("Relu", [hidden]), linears.fc2, "MatMul"), attended]);
    return { name: `whole layer ${computed}`, graph: graph.finish(computed, [1, 1, width], y) };
  });
}
