// Whose fault is it: the item's (a line of the results), the caller's (the job ends), or a machine's (tried again).

import assert from "node:assert/strict";
import { test } from "node:test";
import { ApplicationFailure, CancelledFailure } from "@temporalio/common";
import { DeviceLostError, KernelError, ShapeError } from "../../src/gpu/errors.ts";
import { ImageError } from "../../src/image/image-error.ts";
import { ManifestError, PathError, StoreError } from "../../src/jobs/errors.ts";
import { PromptStoreError, PromptStoreUnavailableError } from "../../src/messages/errors.ts";
import { GenerationError } from "../../src/models/errors.ts";
import { TokenizerError } from "../../src/text/tokenizer-error.ts";
import { itemError, QuestionError, toFailure } from "../../src/workers/activities/mistakes.ts";

const coded = (code: string) => Object.assign(new Error(`${code}: read`), { code });

test("an item's own mistake is its line, with class and sentence", () => {
  for (const Mistake of [ImageError, TokenizerError, GenerationError, QuestionError, PathError]) {
    const error = new Mistake("item: expected this, got that");
    assert.deepEqual(itemError(error, 1), { type: error.name, message: "item: expected this, got that" });
  }
  assert.equal(itemError(coded("EOVERFLOW"), 1).message, "EOVERFLOW: read");
});

test("a fault of the machine or of the program is never an item's, however often it comes", () => {
  const faults = [
    new KernelError("matmul: expected a shader, got none"),
    new ShapeError("add: expected (1), got (2)"),
    new TypeError("undefined is not a function"),
    new DeviceLostError("device: lost"),
    new StoreError("store: full"),
    new PromptStoreError("prompt store: too large"),
    new PromptStoreUnavailableError("prompt store: away"),
    Object.assign(new Error("aborted"), { name: "AbortError", code: "ABORT_ERR" }),
    Object.assign(new TypeError("a bug"), { code: "ERR_INVALID_ARG_TYPE" }),
  ];
  for (const fault of faults) {
    for (const attempt of [1, 5, 50]) assert.throws(() => itemError(fault, attempt), fault, fault.name);
  }
  assert.throws(() => itemError("a text", 9));
});

test("a file system that may work again is waited for, but not for ever", () => {
  for (const attempt of [1, 4]) assert.throws(() => itemError(coded("EIO"), attempt), /EIO/);
  assert.equal(itemError(coded("EIO"), 5).message, "EIO: read");
});

function failure(error: unknown, attempt: number): [string | null | undefined, boolean | null | undefined] {
  const thrown = toFailure(error, attempt);
  assert.ok(thrown instanceof ApplicationFailure);
  assert.equal(thrown.cause, error instanceof Error ? error : undefined);
  return [thrown.type, thrown.nonRetryable];
}

test("callers' mistakes end at once, outages never, what nobody foresaw after five tries", () => {
  for (const attempt of [1, 5, 50]) {
    assert.deepEqual(failure(new ManifestError("x"), attempt), ["ManifestError", true]);
    assert.deepEqual(failure(new PromptStoreError("x"), attempt), ["PromptStoreError", true]);
    assert.deepEqual(failure(new DeviceLostError("x"), attempt), ["DeviceLostError", false]);
    assert.deepEqual(failure(new PromptStoreUnavailableError("x"), attempt), ["PromptStoreUnavailableError", false]);
    assert.deepEqual(failure(coded("EMFILE"), attempt), ["Error", false]);
    assert.deepEqual(failure(new KernelError("x"), attempt), ["KernelError", attempt >= 5]);
    assert.deepEqual(failure("a text", attempt), ["Error", attempt >= 5]);
  }
  assert.ok(toFailure(Object.assign(new Error("x"), { name: "AbortError" }), 9) instanceof CancelledFailure);
});
