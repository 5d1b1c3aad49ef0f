// The row scheduler with programs whose batches can be joined: who takes whose place, and who is not kept waiting by it.

import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import type { RowProgram, RowResult } from "../../src/gpu/row-program.ts";
import { RowScheduler } from "../../src/gpu/scheduler.ts";

interface Work {
  readonly id: string;
  /** Steps until it is done. */
  readonly steps: number;
  readonly key?: string;
  /** It cannot join, or cannot start. */
  readonly refused?: true;
}

/** A program of `most` seats (of `chairs` in the room), each free as soon as its row is done; `log` tells who came when, and who was in each step. */
function seated(name: string, log: string[], most: number, chairs = most) {
  const state = { released: 0, seats: 0 };
  const program: RowProgram<Work, string> = {
    name,
    maxRows: () => most,
    key: (row) => row.key ?? "",
    start(first) {
      const left: number[] = [];
      const rows: Work[] = [];
      const gone = new Set<number>();
      const sitting = () => rows.filter((_, i) => !gone.has(i));
      const add = (more: readonly Work[], how: string) => {
        if (more.some((row) => row.refused)) throw new Error("refused");
        assert.ok(sitting().length + more.length <= most, `${sitting().length} sit, ${more.length} more came`);
        log.push(`${how} ${more.map((row) => row.id).join("+")}`);
        for (const row of more) {
          assert.equal(row.key ?? "", first[0]?.key ?? "", "rows of one key");
          rows.push(row);
          left.push(row.steps);
        }
      };
      add(first, "start");
      return {
        async step(dropped) {
          for (const place of dropped) gone.add(place);
          log.push(
            sitting()
              .map((row) => row.id)
              .join(","),
          );
          await turn();
          const done: RowResult<string>[] = [];
          for (const [i, row] of rows.entries()) {
            if (gone.has(i)) continue;
            left[i] = (left[i] ?? 0) - 1;
            if (left[i] !== 0) continue;
            gone.add(i);
            done.push({ row: i, value: `did ${row.id}` });
          }
          return done;
        },
        joining: { room: () => chairs - sitting().length, join: (more) => add(more, "join") },
        release: () => {
          state.released++;
        },
      };
    },
  };
  return { program, state };
}

const row = (id: string, steps = 1, more: Partial<Work> = {}): Work => ({ id, steps, ...more });
const until = async (done: () => boolean) => {
  for (let i = 0; i < 1000 && !done(); i++) await turn();
  assert.ok(done(), "waited 1000 turns");
};

test("a row that waits takes the place of one that is done, while the slowest goes on", async () => {
  const log: string[] = [];
  const scheduler = new RowScheduler();
  const { program, state } = seated("p", log, 2);
  const works = [row("slow", 4), row("a"), row("b", 2), row("c")];
  const results = await Promise.all(works.map((work) => scheduler.run(program, work)));
  assert.deepEqual(results, ["did slow", "did a", "did b", "did c"]);
  assert.deepEqual(log, ["start slow+a", "slow,a", "join b", "slow,b", "slow,b", "join c", "slow,c"]);
  assert.deepEqual(
    { ...scheduler.stats(program), milliseconds: 0 },
    { rows: 4, failed: 0, batches: 1, joined: 2, steps: 4, milliseconds: 0 },
  );
  assert.equal(state.released, 1);
});

test("rows that come while a batch has room join it; rows of another key do not", async () => {
  const log: string[] = [];
  const scheduler = new RowScheduler();
  const { program } = seated("p", log, 4);
  const first = scheduler.run(program, row("first", 4));
  await until(() => log.length >= 2);
  const others = [row("x", 1, { key: "other" }), row("a"), row("b")].map((work) => scheduler.run(program, work));
  await Promise.all([first, ...others]);
  assert.deepEqual(
    log.filter((line) => /start|join/.test(line)),
    ["start first", "join a+b", "start x"],
  );
});

test("interactive rows join interactive batches of their key only, others none of those, and go first", async () => {
  const log: string[] = [];
  const scheduler = new RowScheduler();
  const { program } = seated("p", log, 2);
  const work = [scheduler.run(program, row("work", 3))];
  await until(() => log.length >= 2);
  const urgent = { priority: "interactive" } as const;
  const quick = [row("quick", 3), row("soon", 1), row("next", 1), row("apart", 1, { key: "apart" })];
  const answers = quick.map((each) => scheduler.run(program, each, urgent));
  await until(() => log.includes("quick"));
  work.push(scheduler.run(program, row("more", 1)));
  await Promise.all([...work, ...answers]);
  assert.ok(log.includes("join more"), "the batch that was there before");
  assert.deepEqual(log.slice(2, 9), [
    "start quick+soon",
    "start next",
    "start apart",
    "quick,soon",
    "next",
    "apart",
    "quick",
  ]);
  assert.equal(log.filter((line) => /quick|soon|next|apart/.test(line) && /work|more/.test(line)).length, 0);
  assert.ok(log.lastIndexOf("quick") < log.lastIndexOf("work"));
});

test("an interactive row that comes later takes a free seat rather than a batch of its own", async () => {
  const log: string[] = [];
  const scheduler = new RowScheduler();
  const { program } = seated("p", log, 2);
  const urgent = { priority: "interactive" } as const;
  const first = scheduler.run(program, row("first", 3), urgent);
  await until(() => log.length >= 2);
  await Promise.all([first, scheduler.run(program, row("second"), urgent)]);
  assert.deepEqual(log, ["start first", "first", "join second", "first,second", "first"]);
});

test("a row that joined and is aborted is dropped at the next boundary, one that waits never joins", async () => {
  const log: string[] = [];
  const scheduler = new RowScheduler();
  const { program, state } = seated("p", log, 2);
  const [joining, waiting] = [new AbortController(), new AbortController()];
  const slow = scheduler.run(program, row("slow", 6));
  const first = scheduler.run(program, row("first"));
  const gone = scheduler.run(program, row("gone", 1000), { signal: joining.signal });
  const never = scheduler.run(program, row("never"), { signal: waiting.signal });
  const last = scheduler.run(program, row("last"));
  const refused = Promise.all([assert.rejects(gone, /enough/), assert.rejects(never, /changed my mind/)]);
  await until(() => log.includes("join gone"));
  waiting.abort(new Error("changed my mind"));
  joining.abort(new Error("enough"));
  await refused;
  assert.deepEqual(await Promise.all([slow, first, last]), ["did slow", "did first", "did last"]);
  assert.ok(!log.some((line) => line.includes("never")));
  assert.ok(log.filter((line) => line.includes("gone")).length <= 3);
  assert.equal(state.released, 1);
  assert.equal(scheduler.load, 0);
});

test("rows that cannot join fail alone, whoever came with them", async () => {
  const log: string[] = [];
  const scheduler = new RowScheduler();
  const { program } = seated("p", log, 4);
  const slow = scheduler.run(program, row("slow", 4));
  await until(() => log.length >= 2);
  const works = [row("a"), row("bad", 1, { refused: true }), row("b")];
  const outcomes = await Promise.all(
    works.map((work) => scheduler.run(program, work).catch((error: Error) => error.message)),
  );
  assert.deepEqual(outcomes, ["did a", "refused", "did b"]);
  assert.equal(await slow, "did slow");
  const { batches, joined, failed } = scheduler.stats(program);
  assert.deepEqual({ batches, joined, failed }, { batches: 1, joined: 2, failed: 1 });
});

test("a key that always has rows waiting does not keep another key's row waiting for ever", async () => {
  const log: string[] = [];
  const scheduler = new RowScheduler();
  const { program } = seated("p", log, 2);
  let started = 0;
  let ended = false;
  // Every row of the one key that ends is followed by another, and never do both that sit end together.
  const follow = async (): Promise<void> => {
    while (!ended && started < 400) await scheduler.run(program, row(`k${started}`, started++ === 0 ? 1 : 2));
  };
  const busy = [follow(), follow(), follow(), follow()];
  await until(() => started > 10);
  const before = started;
  await scheduler.run(program, row("lone", 1, { key: "other" }));
  ended = true;
  const overtook = started - before;
  await Promise.all(busy);
  // Two that had come before it wait, two more may go ahead of it, and each of these four is followed by another.
  assert.ok(overtook <= 8, `${overtook} rows came and went before it`);
});

test("a batch holds no more rows than its program says, whatever room it has", async () => {
  const scheduler = new RowScheduler();
  const { program } = seated("p", [], 2, 9);
  await Promise.all(Array.from({ length: 9 }, (_, i) => scheduler.run(program, row(`k${i}`, 1 + (i % 3)))));
  assert.equal(scheduler.stats(program).failed, 0);
});

test("while only rows of its key wait, a batch goes on without end", async () => {
  const log: string[] = [];
  const scheduler = new RowScheduler();
  const { program, state } = seated("p", log, 2);
  const works = Array.from({ length: 60 }, (_, i) => row(`k${i}`, 1 + (i % 4)));
  await Promise.all(works.map((work) => scheduler.run(program, work)));
  assert.equal(state.released, 1);
  const sitting = log.filter((line) => !/start|join/.test(line)).map((line) => line.split(",").length);
  assert.ok(
    sitting.slice(0, -4).every((count) => count === 2),
    "both seats are taken until the last rows",
  );
});

test("another program takes its turns beside a batch that is joined again and again", async () => {
  const log: string[] = [];
  const scheduler = new RowScheduler();
  const busy = seated("busy", log, 1);
  const other = seated("other", log, 1);
  const rows = Array.from({ length: 20 }, (_, i) => scheduler.run(busy.program, row(`k${i}`, 2)));
  await scheduler.run(other.program, row("encode", 3));
  const steps = log.filter((line) => /^k\d+$/.test(line)).length;
  assert.ok(steps <= 4, `${steps} steps of the busy program went by`);
  await Promise.all(rows);
});

test("closing drains those that wait to join, or gives all of them up", async () => {
  for (const how of ["drain", "reject"] as const) {
    const log: string[] = [];
    const scheduler = new RowScheduler();
    const { program, state } = seated("p", log, 2);
    const long = how === "drain" ? 5 : 1000;
    const works = [row("slow", long), row("a"), row("b", long), row("c", 3), row("d")];
    const outcomes = Promise.allSettled(works.map((work) => scheduler.run(program, work)));
    await until(() => log.includes("join b"));
    await scheduler.close(how);
    const fulfilled = (await outcomes).filter(({ status }) => status === "fulfilled").length;
    assert.equal(fulfilled, how === "drain" ? 5 : 1);
    assert.equal(state.released, 1);
  }
});
