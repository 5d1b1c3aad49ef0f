// Search in both directions: which place the picture of a caption has among all pictures, and the caption of a picture among
// all captions. First by cosine; then the first few are matched, and ordered anew, as `search` does it.

import { readFile } from "node:fs/promises";
import { inOrder } from "../src/cli/in-order.ts";
import { withModel } from "../src/cli/local-model.ts";
import { Progress } from "../src/cli/progress.ts";
import { encodeImage, rankingScore } from "../src/matching.ts";
import { Largest, type Scored } from "../src/search/largest.ts";
import { cosines, vectorValues } from "../src/search/similarity.ts";
import type { Activation, Dtype, MatchLogits } from "../src/stages.ts";
import type { SceneItem } from "./scene-sets.ts";

/** How many of each search are matched and ordered anew. */
export const reranked = 16;

/** The place of each partner among the first `reranked`, from 1; 0: not among them. By cosine, and after matching. */
export interface Places {
  readonly itc: readonly number[];
  readonly itm: readonly number[];
}

export interface PartnerPlaces {
  /** By text. */
  readonly textToImage: Places;
  /** By image. */
  readonly imageToText: Places;
}

/** Images, texts and pairs under way at once; a few full batches. */
const inFlight = 64;

/**
 * Captions and pictures of scenes, searched for each other. Progress goes to stderr.
 * @throws what keeps a model from being loaded, ImageError, InterruptedError after Ctrl-C
 */
export async function findPartners(model: string, dtype: Dtype, items: readonly SceneItem[]): Promise<PartnerPlaces> {
  const request = { ref: model, dtype, purpose: "matches" } as const;
  return withModel(request, "stopped before all searches were done", async ({ stages, signal, fatal }) => {
    const options = { signal };
    const each = async <In, Out>(noun: string, given: readonly In[], work: (input: In) => Promise<Out>) => {
      const progress = new Progress(given.length, { noun });
      const found: Out[] = [];
      const watched = (input: In) => {
        const problem = fatal();
        return problem === null ? work(input) : Promise.reject(problem);
      };
      await inOrder(given, inFlight, watched, (result) => {
        found.push(result);
        progress.add(false);
      });
      progress.finish();
      return found;
    };
    const images = await each("images", items, async ({ image }) =>
      encodeImage(stages, await readFile(image), options),
    );
    const texts = await each("texts", items, async ({ caption }) => {
      const ids = await stages.tokenize(caption);
      return { ids, vector: vectorValues(await stages.queryText(ids, options)) };
    });
    const [queries, width] = stages.card.vectors;
    const vectors = new Float32Array(images.length * queries * width);
    for (const [i, image] of images.entries()) vectors.set(vectorValues(image.vectors), i * queries * width);
    const sizes = { images: images.length, queries, width };
    const scores = cosines(
      vectors,
      sizes,
      texts.map(({ vector }) => vector),
    );
    const cosineOf: Pair = (text, image) => scores[text * images.length + image] ?? Number.NaN;
    const byText = firstPlaces(items.length, cosineOf);
    const byImage = firstPlaces(items.length, (image, text) => cosineOf(text, image));
    const pairs = new Map<string, readonly [number, number]>();
    for (const [text, row] of byText.entries())
      for (const { place } of row) pairs.set(`${text} ${place}`, [text, place]);
    for (const [image, row] of byImage.entries())
      for (const { place } of row) pairs.set(`${place} ${image}`, [place, image]);
    const logits = await each("pairs", [...pairs.values()], ([text, image]) =>
      stages.queryBoth(images[image]?.features as Activation, texts[text]?.ids ?? [], options),
    );
    const scoreOf = new Map([...pairs.keys()].map((key, i) => [key, logits[i] as MatchLogits]));
    const matched: Pair = (text, image) =>
      rankingScore(scoreOf.get(`${text} ${image}`) as MatchLogits, cosineOf(text, image));
    return {
      textToImage: partnerPlaces(byText, matched),
      imageToText: partnerPlaces(byImage, (image, text) => matched(text, image)),
    };
  });
}

/** A score of two numbered things. */
export type Pair = (one: number, other: number) => number;

/** For each of `count`, the `reranked` others that score highest. */
export function firstPlaces(count: number, scoreOf: Pair): (readonly Scored[])[] {
  return Array.from({ length: count }, (_, one) => {
    const largest = new Largest(reranked);
    for (let other = 0; other < count; other++) largest.add(scoreOf(one, other), other);
    return largest.inOrder;
  });
}

/** Where in each search the partner of the same number is, as found and ordered anew by `scoreOf`. */
export function partnerPlaces(found: readonly (readonly Scored[])[], scoreOf: Pair): Places {
  const placeIn = (row: readonly Scored[], partner: number) => row.findIndex(({ place }) => place === partner) + 1;
  return {
    itc: found.map(placeIn),
    itm: found.map((row, one) => {
      const again = new Largest(reranked);
      for (const { place } of row) again.add(scoreOf(one, place), place);
      return placeIn(again.inOrder, one);
    }),
  };
}
