// How many rows a stage takes at once.

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Gpu } from "../../src/gpu/device.ts";
import { type StagePlan, stagedProgram } from "../../src/models/staged-program.ts";

const small = { shape: [1, 4], type: "f32" } as const;

/** Rows at once where a binding holds 64 KiB. */
function rowsOf(plan: Partial<StagePlan<Uint8Array, Uint8Array>>): number {
  const gpu: Pick<Gpu, "bindingLimit" | "softwareAdapter"> = { bindingLimit: 65536, softwareAdapter: true };
  const program = stagedProgram<Uint8Array, Uint8Array>(gpu as Gpu, {
    name: "stage",
    inputs: [small],
    bytesOf: (row) => [row],
    parts: [{ cost: 1, run: () => [] }],
    output: small,
    resultOf: (bytes) => bytes,
    widest: 4,
    ...plan,
  });
  return program.maxRows("stage");
}

test("so many rows that the widest activation, each input and the output fit a binding", () => {
  const large = { ...small, shape: [1, 5000] };
  assert.equal(rowsOf({}), 8);
  assert.equal(rowsOf({ widest: 5000 }), 2);
  assert.equal(rowsOf({ inputs: [small, large] }), 2);
  assert.equal(rowsOf({ output: large }), 2);
  assert.equal(rowsOf({ inputs: [{ ...small, shape: [3, 70, 70] }] }), 1);
});
