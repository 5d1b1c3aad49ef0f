// Every workflow that a worker serves; the bundle is made from this file.

export { answer } from "./answer.ts";
export { chunk } from "./chunk.ts";
export { job } from "./job.ts";
