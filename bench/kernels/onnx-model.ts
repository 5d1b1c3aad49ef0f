// ONNX models as bytes: operators over an input, constants and each other. Messages and field numbers are those of onnx.proto
// (ONNX 1.16), of which only what these models need is written down here.

import protobuf from "protobufjs";
import { type RandomValues, randomBytesOf, randomWords } from "./random-values.ts";

/** Numbers and lists of numbers are integers, unless wrapped in `float`. */
export type OnnxAttribute = number | readonly number[] | string | { readonly float: number };

export interface OnnxNode {
  readonly op: string;
  /** Names of the input, of constants or of other nodes' outputs; "" where an optional one is left out. */
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  /** Of ONNX itself when left out. */
  readonly domain?: "com.microsoft";
  readonly attributes?: Readonly<Record<string, OnnxAttribute>>;
}

/** Random values, which the seed determines (random-values.ts), integers as they are given, or random bytes of a shape. */
export type OnnxConstant =
  | ({ readonly name: string; readonly shape: readonly number[] } & RandomValues)
  | { readonly name: string; readonly integers: readonly number[] }
  | { readonly name: string; readonly bytes: readonly number[]; readonly seed: number };

/** Plain data, so that it can be sent to another process and made bytes there. */
export interface OnnxGraph {
  /** Of the input, of all random constants and of what lies between. */
  readonly type: "f32" | "f16";
  readonly input: { readonly name: string; readonly shape: readonly number[] } & RandomValues;
  readonly constants: readonly OnnxConstant[];
  readonly nodes: readonly OnnxNode[];
  /** The last value of the graph; its first elements are the model's only output. */
  readonly result: { readonly name: string; readonly rank: number };
}

/** How many elements of the result's first row come out. */
export const sampleSize = 8;
/** The name of the model's output. */
export const sampleName = "sample";

/** As ONNX numbers them. */
export const elementTypes = { f32: 1, f16: 10, int64: 7, uint8: 2 } as const;
const attributeTypes = { float: 1, int: 2, string: 3, ints: 7 } as const;

const repeated = (type: string, id: number) => ({ rule: "repeated", type, id });
const messages = protobuf.Root.fromJSON({
  nested: {
    Model: {
      fields: {
        irVersion: { type: "int64", id: 1 },
        producer: { type: "string", id: 2 },
        graph: { type: "Graph", id: 7 },
        operators: repeated("OperatorSet", 8),
      },
    },
    OperatorSet: { fields: { domain: { type: "string", id: 1 }, version: { type: "int64", id: 2 } } },
    Graph: {
      fields: {
        nodes: repeated("Node", 1),
        name: { type: "string", id: 2 },
        initializers: repeated("Tensor", 5),
        inputs: repeated("Value", 11),
        outputs: repeated("Value", 12),
      },
    },
    Node: {
      fields: {
        inputs: repeated("string", 1),
        outputs: repeated("string", 2),
        op: { type: "string", id: 4 },
        attributes: repeated("Attribute", 5),
        domain: { type: "string", id: 7 },
      },
    },
    Attribute: {
      fields: {
        name: { type: "string", id: 1 },
        float: { type: "float", id: 2 },
        int: { type: "int64", id: 3 },
        string: { type: "bytes", id: 4 },
        ints: repeated("int64", 8),
        type: { type: "int32", id: 20 },
      },
    },
    Tensor: {
      fields: {
        dims: repeated("int64", 1),
        type: { type: "int32", id: 2 },
        name: { type: "string", id: 8 },
        raw: { type: "bytes", id: 9 },
      },
    },
    Value: { fields: { name: { type: "string", id: 1 }, type: { type: "Type", id: 2 } } },
    Type: { fields: { tensor: { type: "TensorType", id: 1 } } },
    TensorType: { fields: { element: { type: "int32", id: 1 }, shape: { type: "Shape", id: 2 } } },
    Shape: { fields: { dims: repeated("Dimension", 1) } },
    Dimension: { fields: { size: { type: "int64", id: 1 } } },
  },
});

/** The graph as a model file. Random constants are made here. */
export function onnxModel(graph: OnnxGraph): Uint8Array {
  const { type, input, constants, nodes, result } = graph;
  const start = { name: "sampleStart", integers: new Array(result.rank).fill(0) };
  const end = { name: "sampleEnd", integers: [...new Array(result.rank - 1).fill(1), sampleSize] };
  const slice = { op: "Slice", inputs: [result.name, start.name, end.name], outputs: [sampleName] };
  const sampleShape = end.integers;
  const Model = messages.lookupType("Model");
  const value = (name: string, shape: readonly number[]) => ({
    name,
    type: { tensor: { element: elementTypes[type], shape: { dims: shape.map((size) => ({ size })) } } },
  });
  const model = {
    irVersion: 9,
    producer: "blipfleet bench",
    operators: [
      { domain: "", version: 20 },
      { domain: "com.microsoft", version: 1 },
    ],
    graph: {
      name: "bench",
      nodes: [...nodes, slice].map(nodeMessage),
      initializers: [...constants, start, end].map((constant) => tensorMessage(constant, type)),
      inputs: [value(input.name, input.shape)],
      outputs: [value(sampleName, sampleShape)],
    },
  };
  return Model.encode(Model.create(model)).finish();
}

function nodeMessage({ op, inputs, outputs, domain = undefined, attributes = {} }: OnnxNode) {
  return {
    op,
    inputs,
    outputs,
    ...(domain && { domain }),
    attributes: Object.entries(attributes).map(([name, value]) => attributeMessage(name, value)),
  };
}

function attributeMessage(name: string, value: OnnxAttribute) {
  if (typeof value === "number") return { name, int: value, type: attributeTypes.int };
  if (typeof value === "string") return { name, string: Buffer.from(value), type: attributeTypes.string };
  if ("float" in value) return { name, float: value.float, type: attributeTypes.float };
  return { name, ints: value, type: attributeTypes.ints };
}

function tensorMessage(constant: OnnxConstant, type: OnnxGraph["type"]) {
  if ("integers" in constant) {
    const raw = new Uint8Array(BigInt64Array.from(constant.integers, BigInt).buffer);
    return { name: constant.name, dims: [constant.integers.length], type: elementTypes.int64, raw };
  }
  if ("bytes" in constant) {
    const { name, bytes, seed } = constant;
    const words = randomWords(bytes.reduce((product, size) => product * size, 1) / 4, seed);
    return { name, dims: bytes, type: elementTypes.uint8, raw: new Uint8Array(words.buffer) };
  }
  const { name, shape, ...values } = constant;
  const count = shape.reduce((product, size) => product * size, 1);
  return { name, dims: shape, type: elementTypes[type], raw: randomBytesOf(type, count, values) };
}
