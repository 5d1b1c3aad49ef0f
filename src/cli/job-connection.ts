// The connection that every job command opens, uses and closes.

import type { JobClient } from "../workers/job-client.ts";
import { type DevState, useDevServers } from "./dev-state.ts";

/** Connect to the Temporal server of the environment, or of a running `blipfleet dev`; close whatever happens. */
export async function withJobs<T>(use: (jobs: JobClient, dev: DevState | null) => Promise<T>): Promise<T> {
  const dev = useDevServers();
  const { connectJobs } = await import("../workers/job-client.ts");
  const jobs = await connectJobs();
  try {
    return await use(jobs, dev);
  } finally {
    await jobs.close();
  }
}
