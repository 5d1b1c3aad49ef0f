// Records test/fixtures/histories: what the workflows did on a real server, to be replayed against later code.
//
//     npm run build && node dist/test/workflows/record-histories.js [NAME...]
//
// With names only those are written. Record again only when a change of the workflows is not meant to run histories of older versions to their end.

import { mkdirSync } from "node:fs";
import { ApplicationFailure } from "@temporalio/common";
import { chunkWorkflowId, jobsQueue, jobWorkflowId } from "../../src/messages/queues.ts";
import { answerWorkflow } from "../../src/workflows/answer-types.ts";
import { historiesFolder, writeHistory } from "./histories.ts";
import { eventually, gate, matcher, model, type Rig, startRig } from "./rig.ts";

const wanted = process.argv.slice(2);

async function record(rig: Rig, name: string, workflowId: string, runId?: string): Promise<void> {
  if (wanted.length > 0 && !wanted.includes(name)) return;
  const history = await rig.environment.client.workflow.getHandle(workflowId, runId).fetchHistory();
  writeHistory(`${name}.json`, workflowId, history);
  process.stdout.write(`${name}: ${history.events?.length} events\n`);
}

async function main(): Promise<void> {
  mkdirSync(historiesFolder, { recursive: true });
  const rig = await startRig(60);
  try {
    const hold = gate();
    const long = await rig.job(
      "recorded-long",
      12,
      { window: 3 },
      {
        encode: ({ chunk }) => (chunk === 3 ? hold.passed : Promise.resolve()),
      },
    );
    const first = (await long.handle.describe()).runId;
    await eventually("chunk 3", () => long.calls.encodes.some(({ chunk }) => chunk === 3));
    await long.handle.signal("pause");
    await rig.environment.client.workflow.getHandle(chunkWorkflowId(jobWorkflowId("recorded-long"), 0, 3)).terminate();
    hold.open();
    await long.handle.signal("resume");
    await long.result();
    await record(rig, "job-continues-as-new", jobWorkflowId("recorded-long"), first);
    await record(rig, "job-continued", jobWorkflowId("recorded-long"));

    const waits = gate();
    const cancelled = await rig.job("recorded-cancel", 6, {}, { encode: () => waits.passed });
    await eventually("four chunks", () => cancelled.calls.encodes.length === 4);
    await cancelled.handle.signal("cancel");
    await cancelled.result();
    waits.open();
    await record(rig, "job-cancelled", jobWorkflowId("recorded-cancel"));
    await record(rig, "chunk-cancelled", chunkWorkflowId(jobWorkflowId("recorded-cancel"), 0, 0));

    const refused = await rig.job(
      "recorded-refused",
      2,
      {},
      {
        plan: async () => {
          throw ApplicationFailure.nonRetryable("line 3: expected JSON, got {", "ManifestError");
        },
      },
    );
    await refused.result().catch(() => undefined);
    await record(rig, "job-refused", jobWorkflowId("recorded-refused"));

    for (const topology of ["fused", "split"] as const) {
      const job = await rig.job(
        `recorded-${topology}`,
        4,
        { chunkSize: 4, topology },
        {
          generate: async ({ round }) => (round === 0 ? { result: null, missing: { absent: [1], damaged: [2] } } : {}),
        },
      );
      await job.result();
      await record(rig, `chunk-${topology}-missing`, chunkWorkflowId(jobWorkflowId(`recorded-${topology}`), 0, 0));
    }

    const match = await rig.job("recorded-match", 2, { chunkSize: 2, task: "match", model: matcher, texts: ["a dog"] });
    await match.result();
    await record(rig, "chunk-match", chunkWorkflowId(jobWorkflowId("recorded-match"), 0, 0));

    const filter = { model: matcher, threshold: 0.5 };
    const missing = { absent: [1], damaged: [] };
    const capfilt = await rig.job(
      "recorded-capfilt",
      2,
      { chunkSize: 2, task: "capfilt", topology: "split", filter },
      { compare: async ({ round }) => (round === 0 ? { result: null, missing } : {}) },
    );
    await capfilt.result();
    await record(rig, "chunk-capfilt-split-missing", chunkWorkflowId(jobWorkflowId("recorded-capfilt"), 0, 0));

    const input = { image: "file:///images/cats.jpg", question: "how many cats?", model, topology: "split" };
    await rig.environment.client.workflow.execute(answerWorkflow, {
      taskQueue: jobsQueue,
      workflowId: "recorded-answer",
      args: [input],
    });
    await record(rig, "answer-split-missing", "recorded-answer");
  } finally {
    await rig.stop();
  }
}

await main();
