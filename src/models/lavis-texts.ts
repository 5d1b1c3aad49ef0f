// How LAVIS hands a text to a model, where transformers hands over what the tokenizer made of it: cut to a most, and with another
// first id where the text reads an image. Upstream: salesforce/LAVIS 506965b, lavis/models/blip_models/blip_vqa.py,
// blip_image_text_matching.py and blip2_models/blip2_image_text_matching.py.

import { withRows } from "../gpu/row-program.ts";
import type { BlipPrograms } from "./blip.ts";
import type { RetrievalPrograms } from "./blip-2-retrieval.ts";
import type { OpenedPrograms } from "./checked-model.ts";

export interface LavisTexts {
  /** Most ids, specials included; of a longer text the end is cut off, and the last id stays. */
  readonly most: number;
  /** What stands first, in place of [CLS], of a text that reads an image. Left out: [CLS]. */
  readonly imageReader?: number;
}

/** `max_txt_len` of BLIP's and of BLIP-2's default configurations. */
export const lavisTextLengths = { blip: 35, blip2: 32 } as const;

/** The ids of a text as LAVIS has them. @param readsImage whether the text reads an image */
export function lavisIds(ids: readonly number[], { most, imageReader }: LavisTexts, readsImage: boolean): number[] {
  const kept = ids.length <= most ? [...ids] : [...ids.slice(0, most - 1), ...ids.slice(-1)];
  return readsImage && imageReader !== undefined && kept.length > 0 ? [imageReader, ...kept.slice(1)] : kept;
}

/** Programs of a model that answers questions. */
export function readingQuestions(
  opened: OpenedPrograms<BlipPrograms>,
  texts: LavisTexts,
): OpenedPrograms<BlipPrograms> {
  const { generate, rank } = opened.programs;
  const programs = {
    ...opened.programs,
    ...(generate && {
      generate: withRows(generate, (row) => ({ ...row, textIds: lavisIds(row.textIds, texts, true) })),
    }),
    ...(rank && { rank: withRows(rank, (row) => ({ ...row, textIds: lavisIds(row.textIds, texts, true) })) }),
  };
  return { ...opened, programs };
}

/** Programs of a model that compares images with texts. */
export function readingTexts(
  opened: OpenedPrograms<RetrievalPrograms>,
  texts: LavisTexts,
): OpenedPrograms<RetrievalPrograms> {
  const { queryText, queryBoth } = opened.programs;
  const programs = {
    ...opened.programs,
    ...(queryText && { queryText: withRows(queryText, (ids) => lavisIds(ids, texts, false)) }),
    ...(queryBoth && {
      queryBoth: withRows(queryBoth, (row) => ({ ...row, textIds: lavisIds(row.textIds, texts, true) })),
    }),
  };
  return { ...opened, programs };
}
