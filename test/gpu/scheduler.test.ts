// The row scheduler with made-up programs and no GPU: who shares a batch, who goes first, and who is not harmed.

import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { DeviceLostError } from "../../src/gpu/errors.ts";
import type { RowProgram, RowResult } from "../../src/gpu/row-program.ts";
import { RowScheduler, SchedulerClosedError } from "../../src/gpu/scheduler.ts";

interface Work {
  readonly id: string;
  /** Steps until it is done. */
  readonly steps: number;
  readonly key?: string;
  readonly fails?: "row" | "step" | "start" | "lost";
}

/** A program that counts steps, and writes what happens into `log`. */
function counting(name: string, log: string[], most = 4) {
  const held: (() => void)[] = [];
  const state = { hold: false, released: 0 };
  const program: RowProgram<Work, string> = {
    name,
    maxRows: () => most,
    key: (row) => row.key ?? "",
    start(rows) {
      if (rows.some((row) => row.fails === "start")) throw new Error("cannot start");
      log.push(`${name} starts ${rows.map((row) => row.id).join("+")}`);
      const left = rows.map((row) => row.steps);
      return {
        async step(dropped) {
          log.push(`${name} ${rows.filter((_, i) => !dropped.has(i) && (left[i] ?? 0) > 0).map((row) => row.id)}`);
          if (state.hold) await new Promise<void>((resolve) => held.push(resolve));
          else await turn();
          if (rows.some((row) => row.fails === "step")) throw new Error("step broke");
          if (rows.some((row) => row.fails === "lost")) throw new DeviceLostError("device: gone");
          const done: RowResult<string>[] = [];
          rows.forEach((row, i) => {
            if (dropped.has(i)) return;
            left[i] = (left[i] ?? 0) - 1;
            if (left[i] !== 0) return;
            done.push(
              row.fails === "row" ? { row: i, error: new Error("bad row") } : { row: i, value: `did ${row.id}` },
            );
          });
          return done;
        },
        release: () => {
          state.released++;
        },
      };
    },
  };
  const letGo = () => {
    for (const go of held.splice(0)) go();
  };
  return { program, state, letGo };
}

const row = (id: string, steps = 1, more: Partial<Work> = {}): Work => ({ id, steps, ...more });
const until = async (done: () => boolean) => {
  for (let i = 0; i < 1000 && !done(); i++) await turn();
  assert.ok(done(), "waited 1000 turns");
};

test("rows of different callers share batches up to maxRows, keys apart, each gets its own result", async () => {
  const log: string[] = [];
  const scheduler = new RowScheduler();
  const { program, state } = counting("p", log, 3);
  const ids = ["a", "b", "c", "d"];
  const results = await Promise.all([
    ...ids.map((id) => scheduler.run(program, row(id))),
    scheduler.run(program, row("x", 1, { key: "other" })),
  ]);
  assert.deepEqual(results, ["did a", "did b", "did c", "did d", "did x"]);
  assert.deepEqual(
    log.filter((line) => line.includes("starts")),
    ["p starts a+b+c", "p starts d", "p starts x"],
  );
  assert.equal(state.released, 3);
  assert.deepEqual(
    { ...scheduler.stats(program), milliseconds: 0 },
    { rows: 5, failed: 0, batches: 3, joined: 0, steps: 3, milliseconds: 0 },
  );
});

test("rows that arrive a few turns apart while idle still share a batch", async () => {
  const log: string[] = [];
  const scheduler = new RowScheduler({ gatherMilliseconds: 100 });
  const { program } = counting("p", log);
  const first = scheduler.run(program, row("a"));
  await turn();
  await turn();
  await Promise.all([first, scheduler.run(program, row("b"))]);
  assert.equal(log[0], "p starts a+b");
});

test("an interactive row starts at the next boundary and goes first until it is done", async () => {
  const log: string[] = [];
  const scheduler = new RowScheduler();
  const { program } = counting("p", log, 1);
  const slow = scheduler.run(program, row("slow", 4));
  const queued = scheduler.run(program, row("queued", 1));
  await until(() => log.length === 3);
  const quick = await scheduler.run(program, row("quick", 2), { priority: "interactive" });
  assert.equal(quick, "did quick");
  await Promise.all([slow, queued]);
  const at = log.indexOf("p starts quick");
  assert.ok(at <= 4, `started after ${at} lines: ${log.join("; ")}`);
  assert.deepEqual(log.slice(at, at + 4), ["p starts quick", "p quick", "p quick", "p slow"]);
});

test("interactive rows do not wait for company of batch priority", async () => {
  const log: string[] = [];
  const scheduler = new RowScheduler();
  const { program } = counting("p", log);
  await Promise.all([
    scheduler.run(program, row("a")),
    scheduler.run(program, row("b")),
    scheduler.run(program, row("quick"), { priority: "interactive" }),
  ]);
  assert.deepEqual(log.slice(0, 3), ["p starts quick", "p starts a+b", "p quick"]);
});

test("batch-priority batches of several programs take turns", async () => {
  const log: string[] = [];
  const scheduler = new RowScheduler();
  const left = counting("left", log);
  const right = counting("right", log);
  await Promise.all([scheduler.run(left.program, row("a", 3)), scheduler.run(right.program, row("b", 3))]);
  assert.deepEqual(log.slice(2), ["left a", "right b", "left a", "right b", "left a", "right b"]);
});

test("an aborted row is given up at the next boundary, its batch mates go on", async () => {
  const log: string[] = [];
  const scheduler = new RowScheduler();
  const { program, state, letGo } = counting("p", log);
  const abort = new AbortController();
  state.hold = true;
  const kept = scheduler.run(program, row("kept", 2));
  const gone = scheduler.run(program, row("gone", 2), { signal: abort.signal });
  let outcome = "";
  gone.catch((error: Error) => {
    outcome = error.message;
  });
  await until(() => log.length === 2);
  abort.abort(new Error("caller left"));
  await turn();
  assert.equal(outcome, "", "the submit under way is not interrupted");
  letGo();
  await until(() => log.length === 3);
  assert.equal(outcome, "caller left");
  assert.equal(log[2], "p kept");
  letGo();
  assert.equal(await kept, "did kept");
  assert.equal(state.released, 1);
});

test("a waiting row that is aborted never starts, and an aborted signal is refused at once", async () => {
  const log: string[] = [];
  const scheduler = new RowScheduler();
  const { program } = counting("p", log, 1);
  const abort = new AbortController();
  const first = scheduler.run(program, row("a", 2));
  const second = scheduler.run(program, row("b", 1), { signal: abort.signal });
  abort.abort(new Error("changed my mind"));
  await assert.rejects(second, /changed my mind/);
  await assert.rejects(scheduler.run(program, row("c"), { signal: abort.signal }), /changed my mind/);
  await first;
  await scheduler.close();
  assert.ok(!log.some((line) => line.includes("b") || line.includes("c")), log.join("; "));
});

test("a batch whose rows are all aborted is released", async () => {
  const scheduler = new RowScheduler();
  const log: string[] = [];
  const { program, state } = counting("p", log);
  const abort = new AbortController();
  const gone = scheduler.run(program, row("gone", 1e6), { signal: abort.signal });
  await until(() => log.length >= 3);
  abort.abort(new Error("enough"));
  await assert.rejects(gone, /enough/);
  assert.equal(state.released, 1);
  assert.equal(await scheduler.run(program, row("next")), "did next");
});

test("a failed row fails alone; a step that throws fails its batch only; a row that cannot start fails alone", async () => {
  const log: string[] = [];
  const scheduler = new RowScheduler();
  const { program, state } = counting("p", log);
  const run = (work: Work) => scheduler.run(program, work).catch((error: Error) => error.message);
  const outcomes = await Promise.all([
    run(row("a")),
    run(row("b", 1, { fails: "row" })),
    run(row("c", 1, { key: "2", fails: "step" })),
    run(row("d", 1, { key: "2" })),
    run(row("e", 1, { key: "3", fails: "start" })),
    run(row("f", 1, { key: "3" })),
  ]);
  assert.deepEqual(outcomes, ["did a", "bad row", "step broke", "step broke", "cannot start", "did f"]);
  assert.equal(state.released, 3);
  assert.equal(scheduler.load, 0);
});

test("a lost device rejects every row, is reported once, and no row is taken afterwards", async () => {
  const log: string[] = [];
  const fatal: Error[] = [];
  const scheduler = new RowScheduler({ onFatal: (error) => fatal.push(error) });
  const one = counting("one", log, 1);
  const two = counting("two", log, 1);
  const outcomes = await Promise.allSettled([
    scheduler.run(two.program, row("under way", 5)),
    scheduler.run(one.program, row("lost", 1, { fails: "lost" })),
    scheduler.run(one.program, row("waiting")),
  ]);
  for (const outcome of outcomes) {
    assert.ok(outcome.status === "rejected" && outcome.reason instanceof DeviceLostError, JSON.stringify(outcome));
  }
  assert.equal(fatal.length, 1);
  await assert.rejects(scheduler.run(one.program, row("later")), DeviceLostError);
});

test("a program whose release throws is fatal, and leaves no row waiting for ever", async () => {
  const log: string[] = [];
  const fatal: Error[] = [];
  const scheduler = new RowScheduler({ onFatal: (error) => fatal.push(error) });
  const { program } = counting("p", log, 1);
  const start = (rows: readonly Work[]) => ({
    ...program.start(rows),
    release() {
      throw new Error("release broke");
    },
  });
  const outcomes = await Promise.allSettled([
    scheduler.run({ ...program, start }, row("a")),
    scheduler.run(program, row("b", 5)),
    scheduler.run(program, row("c")),
  ]);
  assert.deepEqual(
    outcomes.map((outcome) => outcome.status),
    ["fulfilled", "rejected", "rejected"],
  );
  assert.deepEqual(
    fatal.map((error) => error.message),
    ["release broke"],
  );
  await scheduler.close();
});

test("closing drains, or gives up at the next boundary; both refuse new rows", async () => {
  for (const how of ["drain", "reject"] as const) {
    const log: string[] = [];
    const scheduler = new RowScheduler();
    const { program } = counting("p", log, 1);
    const rows = [scheduler.run(program, row("a", 3)), scheduler.run(program, row("b", 1))];
    const outcomes = Promise.allSettled(rows);
    await until(() => log.length >= 2);
    const closing = scheduler.close(how);
    await assert.rejects(scheduler.run(program, row("late")), SchedulerClosedError);
    await closing;
    const statuses = (await outcomes).map((outcome) => outcome.status);
    assert.deepEqual(statuses, how === "drain" ? ["fulfilled", "fulfilled"] : ["rejected", "rejected"]);
    assert.equal(log.filter((line) => line === "p a").length, how === "drain" ? 3 : 1);
  }
});
