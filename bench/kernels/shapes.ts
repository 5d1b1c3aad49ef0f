// The shapes that are compared, and the seeds by which both sides make the same weights for them.

/** A matrix of random weights; its bias has the next seed. */
export interface LinearShape {
  readonly inputs: number;
  readonly columns: number;
  readonly seed: number;
}

export interface AttentionShape {
  readonly queryTokens: number;
  readonly keyTokens: number;
  readonly heads: number;
  readonly headWidth: number;
}

export interface VitShape {
  readonly tokens: number;
  readonly width: number;
  readonly heads: number;
  readonly linears: Readonly<Record<"qkv" | "projection" | "fc1" | "fc2", LinearShape>>;
}

export interface OptShape {
  readonly width: number;
  readonly ffnWidth: number;
  readonly heads: number;
  /** Positions before the one that is computed. */
  readonly cached: number;
  readonly linears: Readonly<Record<"query" | "key" | "value" | "out" | "fc1" | "fc2", LinearShape>>;
}

export const seeds = {
  norm: 1000,
  keys: 2000,
  values: 2001,
  biasScale: 0.1,
  gainScale: 0.1,
  eps: 1e-5,
  /** With which a product has about the size of its input. */
  weightScale: (inputs: number) => Math.sqrt(3 / inputs),
} as const;

/** Of every comparison's input. */
export const inputValues = { seed: 1, scale: 1 } as const;

/** What keys and values lie around, so that attention repeated does not fade to 0. */
export const decodeMean = 0.5;

/**
 * How large keys are around it: with queries of about 1 the largest of some hundred weights is then a tenth to a half, and a
 * wrong score shows in the result.
 */
export const keyScale = 6;

export function vitShape(tokens: number, width: number, heads: number, mlpWidth: number): VitShape {
  return {
    tokens,
    width,
    heads,
    linears: {
      qkv: { inputs: width, columns: 3 * width, seed: 10 },
      projection: { inputs: width, columns: width, seed: 20 },
      fc1: { inputs: width, columns: mlpWidth, seed: 30 },
      fc2: { inputs: mlpWidth, columns: width, seed: 40 },
    },
  };
}

export function optShape(width: number, heads: number, ffnWidth: number, cached: number): OptShape {
  return {
    width,
    ffnWidth,
    heads,
    cached,
    linears: {
      query: { inputs: width, columns: width, seed: 10 },
      key: { inputs: width, columns: width, seed: 20 },
      value: { inputs: width, columns: width, seed: 30 },
      out: { inputs: width, columns: width, seed: 40 },
      fc1: { inputs: width, columns: ffnWidth, seed: 50 },
      fc2: { inputs: ffnWidth, columns: width, seed: 60 },
    },
  };
}
