// The self-test finds and names what a driver computes wrongly, shader by shader. On one driver: every fault compiles all anew.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { matmulOperation } from "../src/kernels/matmul-variants.ts";
import { selfTest } from "../src/kernels/self-test.ts";
import { openWithTable, testTable } from "./gpu/own-table.ts";
import { breakShaders } from "./kernels/broken-shader.ts";
import { refuseNothing } from "./kernels/families.ts";

/** One tile of matmul for everything, because every fault compiles it anew. */
const tile = { shader: "matmul", WORKGROUP: 8, ROWS: 2, VECS: 1 };
const small = testTable({ matmul: Object.fromEntries(matmulOperation.classes.map((name) => [name, [tile]])) });
const smallFolder = mkdtempSync(join(tmpdir(), "self-test-"));
after(() => rmSync(smallFolder, { recursive: true }));

/** One broken line per shader, as a driver that computes wrongly would seem. */
const faults = [
  ["matmul", "value += bias[column]", "value -= bias[column]", "matmul of 1 rows with f32 weights"],
  ["matmul", "unpack2x16float(pairs.y)", "unpack2x16float(pairs.x)", "matmul of 1 rows with f16 weights"],
  ["matmul", "max(v, 0.0) -", "max(v, 0.0) +", "matmul with gelu"],
  ["matmul", "max(v, 0.0) - size", "max(v, 0.0) + size", "matmul with tanh gelu"],
  ["matmul", "value *= factor", "value += factor", "matmul with a factor"],
  ["matmul", "params.residualScale * ", "", "matmul with a factor"],
  ["rms-norm", "+ params.eps", "", "rms-norm"],
  ["matmul", "gated(value, 1.702)", "gated(value, 1.7)", "matmul with quick gelu"],
  ["matmul", "gated(value, 1.0)", "gated(value, 1.001)", "matmul with silu"],
  ["rotary", "b * turn.x + a * turn.y", "b * turn.x - a * turn.y", "rotary"],
  ["layer-norm", "variance + params.eps", "variance", "layer-norm"],
  ["attention-lanes", "sums[i][c] / totals[i]", "sums[i][c] * totals[i]", "attention of 9 queries"],
  [
    "attention-lanes",
    "min(lengths[item], params.keyTokens)",
    "params.keyTokens",
    "attention of 9 queries with padding",
  ],
  ["attention-lanes", "i32(first + t) - i32(token)", "0", "attention with position bias"],
  [
    "attention-lanes",
    "let unseen = CAUSAL && first + t >",
    "let unseen = CAUSAL && first + t > 1u +",
    "causal attention",
  ],
  ["attention-weights", "weights[at] - largest[i]", "weights[at]", "attention-weights"],
  ["cached-attention-lanes", "params.reach - distance", "params.reach", "cached-attention with position bias"],
  ["cached-attention-lanes", "max(visible, contexts[sequence])", "visible", "cached-attention with a context"],
  ["block-positions", "contexts[cursors[row].w] - 1u", "contexts[cursors[row].w]", "block-positions"],
  ["unit-rows", "sqrt(total)", "total", "unit-rows"],
  ["mean-rows", "sum / f32(params.count)", "sum", "mean-rows"],
  ["place-rows", "item * params.itemStride + t", "item + t", "place-rows"],
  ["unfold-patches", "* size + dx;", "* size;", "unfold-patches"],
  ["embed-patches", "if (token > 0u)", "if (token > 1u)", "embed-patches"],
  ["add", "+ addend[element", "- addend[element", "add"],
  ["hand-over", "0xfffu +", "0x1000u +", "hand-over and take-over"],
  ["take-over", "0x1p-24f", "0x1p-25f", "hand-over and take-over"],
  ["convert-weight", "pair(row + 1u, input)", "pair(row, input)", "convert-weight"],
  ["quantize-weight", "<< (i * BITS)", "<< (32u - BITS - i * BITS)", "quantize-weight to int8"],
  ["matmul", "words << vec4<u32>(28u", "words << vec4<u32>(24u", "matmul of 1 long rows with int4 weights"],
  ["matmul", "pairs.x << 16u, pairs.x &", "pairs.x << 16u, pairs.y &", "matmul of 1 long rows with int8 weights"],
  ["matmul", "let start = first / GROUP", "let start = 0u * first", "matmul of 1 long rows with int8 weights"],
  ["convert-plain", "0x1p-24f", "0x1p-25f", "convert-plain"],
  ["embed-tokens", "token - params.firstId;", "token;", "embed-tokens and embed-prompt"],
  ["embed-prompt", "(t + params.offset)", "t", "embed-tokens and embed-prompt"],
  ["append-cache", "shifted + 0xfffu +", "shifted + 0x1000u +", "append-cache in f16"],
  ["cached-attention-lanes", "headDim - 1u)] * params.scale", "headDim - 1u)]", "cached-attention in f32"],
  ["cached-attention-lanes", "total *= shrink", "total *= 1.0", "cached-attention over many positions"],
  ["select-rows", "picks[item]", "item", "select-rows"],
  ["greedy-scores", "score < 0.0", "score > 0.0", "greedy-scores and greedy-step"],
  [
    "greedy-step",
    "ended[record + 2u] = generated + 1u",
    "ended[record + 2u] = generated",
    "greedy-scores and greedy-step",
  ],
  ["sample-scores", "score / temperature", "score * temperature", "sample-scores, sample-limits and sample-best"],
  ["sample-limits", "totals[d] >= aim", "totals[d] > aim", "sample-scores, sample-limits and sample-best"],
  ["sample-best", "- log(exponential", "+ log(exponential", "sample-scores, sample-limits and sample-best"],
  ["log-sum-exp", "sum += exp(", "sum += 2.0 * exp(", "log-sum-exp, beam-scores and beam-step"],
  ["beam-scores", "- high) - logSum", "- high) + logSum", "log-sum-exp, beam-scores and beam-step"],
  ["beam-candidates", "value > otherValue", "value < otherValue", "log-sum-exp, beam-scores and beam-step"],
  ["beam-step", "open[k] > open[pick]", "open[k] < open[pick]", "log-sum-exp, beam-scores and beam-step"],
  ["given-step", "- high) - log(sum)", "- high) + log(sum)", "given-step"],
  ["advance", "let slot = (item + 1u) * params.promptSlots + row", "let slot = row", "advance of two"],
] as const;

for (const [shader, right, wrong, kernel] of faults) {
  test(`a fault in ${shader} (\`${wrong}\`) is found and named`, async () => {
    const mend = breakShaders([[shader, right, wrong]]);
    // The first refusal is told, and this ends the test.
    const gpu = await openWithTable(smallFolder, small, refuseNothing);
    try {
      await assert.rejects(selfTest(gpu), { message: new RegExp(`self-test of ${kernel}: expected`) });
    } finally {
      gpu.close();
      mend();
    }
  });
}
