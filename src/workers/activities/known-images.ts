// Which images a job need not encode, because the index that it adds to has them.

import type { RootCheck } from "../../jobs/roots.ts";
import { toPath } from "../../jobs/roots.ts";
import type { Asked } from "../../messages/job.ts";
import { expectModel, openImageIndex, versionOf } from "../../search/vector-file.ts";

/** The last one that was asked for: the activities of a job ask for the same. */
let last: { readonly name: string; readonly digests: Promise<ReadonlySet<string>> } | undefined;

/**
 * Digests of the images in the index that the job names; none where it names none, or there is none yet.
 * @throws PathError when it is outside the roots; ImageIndexError for a file that is no index, is damaged, or is of another model
 */
export async function knownImages({ known, model }: Asked, roots: RootCheck): Promise<ReadonlySet<string>> {
  if (known === undefined) return new Set();
  const path = await roots.resolveInside(toPath(known, "/"));
  const name = JSON.stringify([path, model, await versionOf(path)]);
  if (last?.name === name) return last.digests;
  const digests = digestsIn(path, model);
  last = { name, digests };
  // One that could not be read is not kept.
  digests.catch(() => {
    if (last?.digests === digests) last = undefined;
  });
  return digests;
}

async function digestsIn(path: string, model: Asked["model"]): Promise<ReadonlySet<string>> {
  const index = await openImageIndex(path);
  if (index !== null) {
    const { queries, width } = index.model;
    expectModel(index, { ...model, queries, width });
  }
  return new Set([...(index?.images ?? [])].map(({ digest }) => digest));
}
