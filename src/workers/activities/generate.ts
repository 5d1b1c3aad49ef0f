// The activity generate of a chunk: prompts and questions to texts, committed group by group and then as one object.
//
//     chunks/000012/generate.01003.jsonl   round 1, group 3: items 48 … 63 of the chunk, those that had a prompt
//     chunks/000012/generate.jsonl         the whole chunk in order; its digest is what the job knows

import { commitResults, type ResultLine, readResults, stageObjectName } from "../../jobs/results.ts";
import { type ObjectStore, openStore } from "../../jobs/store.ts";
import type {
  ChunkIdentity,
  GenerateInput,
  GenerateOutcome,
  ItemError,
  ItemResult,
  PromptLine,
} from "../../messages/job.ts";
import { StageRun } from "./encode.ts";
import { generateText } from "./make-text.ts";
import { itemsOfRound, type Placed, readPromptLines } from "./prompt-lines.ts";
import type { Serving } from "./serving.ts";

/** Items whose texts are committed together: what a killed worker loses at most, per group under way. */
const groupSize = 16;

/** Room for the groups of one round in a part's number. */
const groupsInRound = 1000;

/** Texts for all items that have a prompt; the chunk's result when none is missing, or in the last round. */
export async function generate(serving: Serving, input: GenerateInput): Promise<GenerateOutcome> {
  const store = openStore(input.folder);
  const items = await itemsOfRound(input, null);
  const prompts = await readPromptLines(store, input.prompts);
  const groups = new Groups(store, input, items);
  await groups.resume();
  const rest = items.filter(({ position }) => !groups.has(position));
  const run = new StageRun(serving, "generate", items.length);
  for (let done = rest.length; done < items.length; done += 1) run.count("reused");
  const missing = { absent: [] as number[], damaged: [] as number[] };

  await run.each(rest, async (placed, signal) => {
    const { position } = placed;
    const found = await textOf(serving, run, input, placed, prompts.get(position), signal);
    if ("result" in found) await groups.add(position, { ...found, index: placed.item.index, maker: serving.maker });
    else missing[found.missing].push(position);
    await groups.settle(position);
  });

  const sorted = { absent: missing.absent.sort(ascending), damaged: missing.damaged.sort(ascending) };
  const isWhole = sorted.absent.length + sorted.damaged.length === 0;
  return { ...run.work(), missing: sorted, result: isWhole ? await groups.commitAll() : null };
}

async function textOf(
  serving: Serving,
  run: StageRun,
  input: GenerateInput,
  { item }: Placed,
  line: PromptLine | undefined,
  signal: AbortSignal,
): Promise<{ readonly result: ItemResult } | { readonly missing: "absent" | "damaged" }> {
  const { asked } = input;
  const question = asked.task === "ask" ? (item.prompt ?? asked.prompt) : null;
  const named = { id: item.id, image: item.image };
  const failed = (error: ItemError) => ({
    result: { ...named, status: "failed" as const, ...(question === null ? {} : { question }), error },
  });
  if (line === undefined) return { missing: "absent" };
  if ("error" in line) return failed(line.error);
  try {
    const generated = await generateText(serving, asked, item.prompt, line, { signal });
    if (!("missing" in generated)) {
      run.count("made");
      return { result: { ...named, status: "done", ...(question === null ? {} : { question }), ...generated } };
    }
    const missing = line.missing ?? generated.missing;
    if (!input.last) return { missing };
    return failed({
      type: "PromptStoreError",
      message:
        `prompt store: expected the prompt of ${item.id}, got none (${missing}) after ${input.round} further encodes; ` +
        "raise the stream's max_bytes or max_age, or use a smaller window",
    });
  } catch (error) {
    return failed(run.itemFailed(error, signal));
  }
}

/** The lines of a chunk by group: taken back from earlier tries and rounds, committed when a group is settled. */
class Groups {
  readonly #store: ObjectStore;
  readonly #chunk: ChunkIdentity & { readonly round: number };
  readonly #lines = new Map<number, ResultLine>();
  /** By group: positions without an answer yet, and whether a line is new since the last commit. */
  readonly #open = new Map<number, { waiting: number; fresh: number[] }>();
  readonly #count: number;

  constructor(store: ObjectStore, chunk: ChunkIdentity & { readonly round: number }, items: readonly Placed[]) {
    this.#store = store;
    this.#chunk = chunk;
    this.#count = items.length;
  }

  has(position: number): boolean {
    return this.#lines.has(position);
  }

  /** Take in what earlier rounds, and earlier tries of this one, have committed. */
  async resume(): Promise<void> {
    const groups = Math.ceil(this.#count / groupSize);
    for (let round = 0; round <= this.#chunk.round; round += 1) {
      for (let group = 0; group < groups; group += 1) {
        const part = await this.#store.find(this.#partName(round, group));
        if (part !== null) await this.#adopt(part);
      }
    }
    for (let group = 0; group < groups; group += 1) {
      const size = Math.min(groupSize, this.#count - group * groupSize);
      const known = Array.from({ length: size }, (_, i) => group * groupSize + i).filter((position) =>
        this.has(position),
      );
      this.#open.set(group, { waiting: size - known.length, fresh: [] });
    }
  }

  add(position: number, line: ResultLine): void {
    this.#lines.set(position, line);
    this.#groupOf(position).fresh.push(position);
  }

  /** An item has its answer, a line or none; the last of its group commits the group's new lines. */
  async settle(position: number): Promise<void> {
    const open = this.#groupOf(position);
    open.waiting -= 1;
    if (open.waiting > 0 || open.fresh.length === 0) return;
    const lines = open.fresh.sort(ascending).flatMap((fresh) => this.#lines.get(fresh) ?? []);
    const name = this.#partName(this.#chunk.round, Math.floor(position / groupSize));
    // Whoever committed first decides: its lines replace ours.
    await this.#adopt(await commitResults(this.#store, name, lines));
  }

  /** The chunk's result, first writer wins. */
  async commitAll(): Promise<GenerateOutcome["result"]> {
    const lines = [...this.#lines].sort(([a], [b]) => a - b).map(([, line]) => line);
    const name = stageObjectName(this.#chunk.chunk, "generate");
    const committed = await commitResults(this.#store, name, lines);
    const winner = await readResults(this.#store, committed);
    const done = winner.filter(({ result }) => result.status === "done").length;
    return { ...committed, done, failed: winner.length - done };
  }

  async #adopt(part: { readonly name: string; readonly sha256: string }): Promise<void> {
    for (const line of await readResults(this.#store, part)) {
      this.#lines.set(line.index - this.#chunk.first, line);
    }
  }

  #partName(round: number, group: number): string {
    return stageObjectName(this.#chunk.chunk, "generate", round * groupsInRound + group);
  }

  #groupOf(position: number): { waiting: number; fresh: number[] } {
    const group = Math.floor(position / groupSize);
    const open = this.#open.get(group) ?? { waiting: 0, fresh: [] };
    this.#open.set(group, open);
    return open;
  }
}

function ascending(a: number, b: number): number {
  return a - b;
}
