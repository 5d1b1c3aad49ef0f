// Which images a job need not encode, because the index that it adds to has them.

import { setImmediate as turn } from "node:timers/promises";
import type { RootCheck } from "../../jobs/roots.ts";
import { toPath } from "../../jobs/roots.ts";
import type { Asked } from "../../messages/job.ts";
import { expectModel, openImageIndex, versionOf } from "../../search/vector-file.ts";
import { withHeartbeats } from "./heartbeats.ts";

/** The last one that was asked for: the activities of a job ask for the same. */
let last: Reading | undefined;

interface Reading {
  readonly name: string;
  readonly digests: Promise<ReadonlySet<string>>;
}

/** Images whose lines are parsed before other work of this thread gets its turn: some milliseconds. */
const imagesInTurn = 1024;

/**
 * Digests of the images in the index that the job names; none where it names none, or there is none yet. A million images take
 * seconds, in which the activity heartbeats.
 * @throws PathError when it is outside the roots; ImageIndexError for a file that is no index, is damaged, or is of another model
 */
export async function knownImages({ known, model }: Asked, roots: RootCheck): Promise<ReadonlySet<string>> {
  if (known === undefined) return new Set();
  const path = await roots.resolveInside(toPath(known, "/"));
  const name = JSON.stringify([path, model, await versionOf(path)]);
  if (last?.name !== name) last = begin(name, path, model);
  const { digests } = last;
  return withHeartbeats(
    () => ({ reads: known }),
    () => digests,
  );
}

function begin(name: string, path: string, model: Asked["model"]): Reading {
  const reading = { name, digests: digestsIn(path, model) };
  // One that could not be read is not kept.
  reading.digests.catch(() => {
    if (last === reading) last = undefined;
  });
  return reading;
}

async function digestsIn(path: string, model: Asked["model"]): Promise<ReadonlySet<string>> {
  const index = await openImageIndex(path);
  const digests = new Set<string>();
  if (index === null) return digests;
  const { queries, width } = index.model;
  expectModel(index, { ...model, queries, width });
  for (let place = 0; place < index.images.length; place++) {
    digests.add(index.images.at(place).digest);
    if (place % imagesInTurn === imagesInTurn - 1) await turn();
  }
  return digests;
}
