// The report of the retrieval set: how often the right one comes first, or among the first five.

import type { PartnerPlaces, Places } from "./partner-places.ts";
import { retrievalSet } from "./scene-sets.ts";
import type { Share } from "./scores.ts";
import { equality, type Figure, type SetReport } from "./set-report.ts";

const ways = [
  ["textToImage", "picture of a caption"],
  ["imageToText", "caption of a picture"],
] as const;

const orders = [
  ["itc", "ITC"],
  ["itm", "re-ranked by ITM"],
] as const;

/** @param reference null: nothing is recorded for these scenes */
export function retrievalReport(ours: PartnerPlaces, reference: PartnerPlaces | null): SetReport {
  const scenes = ours.textToImage.itc.length;
  const figures = ways.flatMap(([way, what]) =>
    orders.flatMap(([order, by]) =>
      [1, 5].map((most): Figure => {
        const shareOf = (places: Places) => recall(places[order], most);
        return {
          name: `${what}, R@${most}, ${by}`,
          ours: shareOf(ours[way]),
          blind: { right: Math.min(most, scenes), of: scenes },
          reference: reference && shareOf(reference[way]),
        };
      }),
    ),
  );
  const equalities =
    reference &&
    ways.flatMap(([way, what]) =>
      orders.map(([order, by]) =>
        equality(`places (${what}, ${by})`, rows(ours[way][order]), rows(reference[way][order])),
      ),
    );
  return { set: retrievalSet, scenes, figures, equalities };
}

function recall(places: readonly number[], most: number): Share {
  return { right: places.filter((place) => place >= 1 && place <= most).length, of: places.length };
}

function rows(places: readonly number[]): number[][] {
  return places.map((place) => [place]);
}
