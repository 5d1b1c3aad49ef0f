// A real Temporal server, the real workflows, and typed fake activities whose behaviour each test sets by job.

import { createHash } from "node:crypto";
import { Context } from "@temporalio/activity";
import { TestWorkflowEnvironment } from "@temporalio/testing";
import { DefaultLogger, Runtime, Worker } from "@temporalio/worker";
import type {
  Asked,
  ChunkReport,
  Committed,
  CompareInput,
  EncodeInput,
  EncodeOutcome,
  GenerateInput,
  GenerateOutcome,
  IndexPage,
  JobInput,
  JobProgress,
  QueryInput,
} from "../../src/messages/job.ts";
import { jobsQueue, jobWorkflowId, stageQueue } from "../../src/messages/queues.ts";
import { defaultGeneration } from "../../src/stages.ts";
import { askAfter } from "../../src/workers/activities/jobs.ts";
import { findBundle } from "../../src/workers/bundle-workflows.ts";
import { findServer } from "../../src/workers/servers/binaries.ts";
import { searchAttributes } from "../../src/workers/servers/temporal.ts";
import type {
  AnswerActivities,
  ChunkActivities,
  CompareActivities,
  JobActivities,
  PlanInput,
} from "../../src/workflows/stage-activities.ts";

export const model = { ref: "fake", digest: "ab".repeat(32), dtype: "f32" } as const;
/** One that compares images with texts. */
export const matcher = { ref: "matcher", digest: "cd".repeat(32), dtype: "f32" } as const;

/** What the fakes of one job do; left out: all goes well. */
export interface Behaviour {
  plan?(input: PlanInput): Promise<void>;
  encode?(input: EncodeInput): Promise<void>;
  query?(input: QueryInput): Promise<void>;
  generate?(input: GenerateInput): Promise<Partial<GenerateOutcome>>;
  compare?(input: CompareInput): Promise<Partial<GenerateOutcome>>;
}

/** What the fakes of one job were asked, in order. */
export interface Calls {
  readonly plans: PlanInput[];
  readonly encodes: EncodeInput[];
  readonly queries: QueryInput[];
  readonly generates: GenerateInput[];
  readonly compares: CompareInput[];
  /** Activities of stages by name and queue, e.g. "encode on encode.abababababab.f32". */
  readonly order: string[];
  readonly pages: IndexPage[];
}

export interface Rig {
  /** What the workflow `answer` asked for, one after another. */
  readonly answered: readonly Asked[];
  readonly environment: TestWorkflowEnvironment;
  /** Start a job over `items` fake items. */
  job(jobId: string, items: number, more?: Partial<JobInput>, behaviour?: Behaviour): Promise<RigJob>;
  stop(): Promise<void>;
}

export interface RigJob {
  readonly calls: Calls;
  readonly handle: ReturnType<TestWorkflowEnvironment["client"]["workflow"]["getHandle"]>;
  progress(): Promise<JobProgress>;
  result(): Promise<JobProgress>;
  /** Send a report as a chunk would. */
  report(report: ChunkReport): Promise<void>;
}

/** @param suggestAt events after which the server suggests continue-as-new */
export async function startRig(suggestAt: number): Promise<Rig> {
  // Failures that tests provoke would fill the output.
  Runtime.install({
    logger: new DefaultLogger("ERROR"),
    telemetryOptions: { logging: { filter: "ERROR", forward: {} } },
  });
  const environment = await TestWorkflowEnvironment.createLocal({
    server: {
      executable: { type: "existing-path", path: findServer("temporal") },
      extraArgs: [
        ...["--dynamic-config-value", `limit.historyCount.suggestContinueAsNew=${suggestAt}`],
        ...Object.entries(searchAttributes).flatMap(([name, type]) => ["--search-attribute", `${name}=${type}`]),
      ],
    },
  });
  const { nativeConnection: connection, client } = environment;
  const behaviours = new Map<string, Behaviour>();
  const calls = new Map<string, Calls>();
  const of = (jobId: string) => ({ does: behaviours.get(jobId) ?? {}, saw: calls.get(jobId) ?? noCalls() });

  const jobs: JobActivities = {
    async plan(input) {
      const { does, saw } = of(input.jobId);
      saw.plans.push(input);
      await does.plan?.(input);
      return { items: Number(input.source), shardSize: 5000, index: committed("manifest.json", input.source) };
    },
    async fold({ folder, page }) {
      of(folder).saw.pages.push(page);
      return committed(`pages/${page.page}.json`, JSON.stringify(page));
    },
    askAfter,
  };
  const stages: ChunkActivities & CompareActivities = {
    async encode(input) {
      const { does, saw } = of(input.jobId);
      saw.encodes.push(input);
      saw.order.push(here());
      await does.encode?.(input);
      return outcome(input, "encode");
    },
    async query(input) {
      const { does, saw } = of(input.jobId);
      saw.queries.push(input);
      saw.order.push(here());
      await does.query?.(input);
      return outcome(input, "query");
    },
    async generate(input) {
      const { does, saw } = of(input.jobId);
      saw.generates.push(input);
      saw.order.push(here());
      const work = { made: input.count, reused: 0, milliseconds: 1 };
      const result = { ...committed(`chunks/${input.chunk}/generate.jsonl`, ""), done: input.count, failed: 0 };
      const all = { ...work, missing: { absent: [], damaged: [] }, result };
      return { ...all, ...(await does.generate?.(input)) };
    },
    async compare(input) {
      const { does, saw } = of(input.jobId);
      saw.compares.push(input);
      saw.order.push(here());
      const work = { made: input.count, reused: 0, milliseconds: 1 };
      const result = { ...committed(`chunks/${input.chunk}/compare.jsonl`, ""), done: input.count, failed: 0 };
      const all = { ...work, missing: { absent: [], damaged: [] }, result };
      return { ...all, ...(await does.compare?.(input)) };
    },
  };

  // One image that is there at the second try, so that a recorded answer has both ways in it.
  let answers = 0;
  const answered: Asked[] = [];
  const one: AnswerActivities = {
    encodeOne: async () => ({ prompt: "a".repeat(64), features: "b".repeat(64) }),
    queryOne: async () => ({ prompt: "a".repeat(64) }),
    async generateOne({ asked }) {
      answered.push(asked);
      answers += 1;
      return answers % 2 === 1 ? { missing: "absent" } : { text: "two cats", token_ids: [7, 8, 2] };
    },
  };

  const bundle = { codePath: findBundle() };
  const workers = [
    await Worker.create({ connection, taskQueue: jobsQueue, workflowBundle: bundle, activities: { ...jobs } }),
    ...(await Promise.all(
      (["encode", "query", "generate"] as const).map((stage) =>
        Worker.create({
          connection,
          taskQueue: stageQueue(stage, model),
          activities: { [stage]: stages[stage] },
        }),
      ),
    )),
    ...(await Promise.all(
      (["encode", "query"] as const).map((stage) =>
        Worker.create({
          connection,
          taskQueue: stageQueue(stage, matcher),
          activities: { ...(stage === "encode" ? { encode: stages.encode } : {}), compare: stages.compare },
        }),
      ),
    )),
    ...(await Promise.all(
      (["encode", "query", "generate"] as const).map((stage) =>
        Worker.create({
          connection,
          taskQueue: stageQueue(stage, model, "now"),
          activities: { [`${stage}One`]: one[`${stage}One`] },
        }),
      ),
    )),
  ];
  const runs = workers.map((worker) => worker.run());

  return {
    environment,
    answered,
    async job(jobId, items, more = {}, behaviour = {}) {
      const saw = calls.get(jobId) ?? noCalls();
      calls.set(jobId, saw);
      behaviours.set(jobId, behaviour);
      const input: JobInput = {
        jobId,
        source: String(items),
        folder: jobId,
        chunkSize: 1,
        window: 4,
        task: "caption",
        model,
        topology: "fused",
        prompt: null,
        generation: defaultGeneration,
        timing: { heartbeatSeconds: 2, silentSeconds: 1 },
        visibility: "search-attributes",
        ...more,
      };
      await client.workflow.start("job", { taskQueue: jobsQueue, workflowId: jobWorkflowId(jobId), args: [input] });
      const handle = client.workflow.getHandle(jobWorkflowId(jobId));
      return {
        calls: saw,
        handle,
        progress: () => handle.query<JobProgress>("progress"),
        result: () => handle.result(),
        report: (report) => handle.signal("chunkFinished", report),
      };
    },
    async stop() {
      for (const worker of workers) worker.shutdown();
      await Promise.all(runs);
      await environment.teardown();
    },
  };
}

function noCalls(): Calls {
  return { plans: [], encodes: [], queries: [], generates: [], compares: [], order: [], pages: [] };
}

/** The activity that runs, and its queue. */
function here(): string {
  const { activityType, taskQueue } = Context.current().info;
  return `${activityType} on ${taskQueue}`;
}

function outcome(input: EncodeInput, stage: string): EncodeOutcome {
  const name = `chunks/${input.chunk}/${stage}.${input.round}.jsonl`;
  return { committed: committed(name, ""), made: input.count, reused: 0, milliseconds: 1 };
}

export function committed(name: string, text: string): Committed {
  return { name, sha256: createHash("sha256").update(name).update(text).digest("hex") };
}

/** Something that a test decides when to let pass. */
export function gate(): { readonly open: () => void; readonly passed: Promise<void> } {
  let open = () => {};
  const passed = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { open, passed };
}

/** Wait until `holds`, at most ten seconds. */
export async function eventually(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  for (const deadline = Date.now() + 10_000; Date.now() < deadline; ) {
    if (await holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  throw new Error(`expected ${what} within 10 s, got nothing of the kind`);
}
