// One comparison: our side and the peer's, warm, in turns.

import type { BenchRow } from "../../src/cli/bench.ts";
import { median } from "../../src/gpu/median.ts";
import type { PeerForm } from "./graphs.ts";
import { leastMilliseconds, type MachineLimits, type Work } from "./limits.ts";
import type { Side } from "./ours.ts";
import { type Peer, PeerError, type PeerSide } from "./peer.ts";
import type { Provider } from "./peer-process.ts";

/** What is compared. Both sides compute the same, from the same random weights. */
export interface Comparison {
  readonly name: string;
  /** What one run computes, `repeats` times in a chain. */
  readonly work: Work;
  readonly repeats: number;
  readonly ours: () => Promise<Side>;
  /** Ways to have the peer do it; its fastest counts. The CPU provider takes the first f32 one. */
  readonly forms: readonly PeerForm[];
  /** Largest gap between the two sides' results. */
  readonly tolerance: number;
}

export interface Rounds {
  /** Runs of each side whose median counts. */
  readonly timed: number;
  readonly warmUp: number;
}

/** With what a comparison is made. */
export interface Setting {
  /** null: there is none, and its columns stay empty. */
  readonly peer: Pick<Peer, "open"> | null;
  readonly limits: MachineLimits;
  readonly rounds: Rounds;
  readonly tell: (line: string) => void;
}

interface Chosen {
  readonly form: PeerForm;
  readonly side: PeerSide;
}

/** A form that is this much slower than another in a warm run is not tried again. */
const hopeless = 1.5;

export async function compare(comparison: Comparison, { peer, limits, rounds, tell }: Setting): Promise<BenchRow> {
  const { name, repeats, work, forms, tolerance } = comparison;
  const ours = await comparison.ours();
  const refuse = (line: string) => tell(`bench: ${name}: ${line}`);
  const same = (form: PeerForm, sample: readonly number[]) => differenceOf(form, ours.sample, sample, tolerance);
  const webgpu = peer && (await fastestForm(peer, forms, "webgpu", same, refuse));
  const cpuForms = forms.filter(({ graph }) => graph.type === "f32").slice(0, 1);
  const cpu = peer && (await fastestForm(peer, cpuForms, "cpu", same, refuse));
  const sides = [ours, webgpu?.side, cpu?.side].filter((side) => side !== undefined && side !== null);
  const medians = await unlessPeer(
    () => inTurns(sides, rounds),
    (error) => refuse(`in the timed runs: ${error.message}`),
  );
  // Without its peer the row is ours alone.
  const times = medians ?? (await inTurns([ours], rounds));
  for (const side of sides)
    await unlessPeer(
      () => side.close(),
      () => {},
    );
  const of = (side: Side | undefined) => {
    const median = side && times.get(side);
    return median === undefined ? null : median / repeats;
  };
  const [own = Number.NaN, other, ceiling] = [of(ours) ?? Number.NaN, of(webgpu?.side), of(cpu?.side)];
  return {
    name,
    ours: own,
    peer: other ?? null,
    unit: "ms",
    ratio: other === null || other === undefined ? null : other / own,
    cpu: ceiling ?? null,
    ofLimit: leastMilliseconds(work, limits) / own,
    first: ours.first,
    peerFirst: (medians && webgpu?.side.first) ?? null,
    peerSetting: (medians && webgpu?.form.name) ?? null,
  };
}

/** What `work` gives, or null where the peer failed in it, which `told` is told. */
async function unlessPeer<T>(work: () => Promise<T>, told: (error: PeerError) => void): Promise<T | null> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof PeerError)) throw error;
    told(error);
    return null;
  }
}

/** Medians of the sides' runs in milliseconds. Every other round goes through the sides backwards. */
export async function inTurns(sides: readonly Side[], { timed, warmUp }: Rounds): Promise<Map<Side, number>> {
  const times = new Map<Side, number[]>(sides.map((side) => [side, []]));
  for (let round = -warmUp; round < timed; round++) {
    for (const side of round % 2 === 0 ? sides : [...sides].reverse()) {
      const took = await side.run();
      if (round >= 0) times.get(side)?.push(took);
    }
  }
  return new Map([...times].map(([side, all]) => [side, median(all)]));
}

/**
 * The form whose warm run is fastest, or null where the provider runs none. One that computes something else than we do is
 * refused: on lavapipe 25.0 the peer's one operator for attention in f32 is wrong for several queries.
 * @throws Error when it runs some, and all of them compute something else
 */
async function fastestForm(
  peer: Pick<Peer, "open">,
  forms: readonly PeerForm[],
  provider: Provider,
  differs: (form: PeerForm, sample: readonly number[]) => string | null,
  refuse: (line: string) => void,
): Promise<Chosen | null> {
  let wrong: string | null = null;
  let best: (Chosen & { readonly took: number }) | null = null;
  for (const form of forms) {
    try {
      const side = await peer.open(form, provider);
      const difference = differs(form, side.sample);
      if (difference !== null) {
        wrong = difference;
        refuse(`${form.name} on ${provider}: ${difference}`);
        await side.close();
        continue;
      }
      if (forms.length === 1) return { form, side };
      let took = await side.run();
      if (best === null || took < hopeless * best.took) took = Math.min(took, await side.run());
      const slower = best === null || took < best.took ? best?.side : side;
      if (best === null || took < best.took) best = { form, side, took };
      await slower?.close();
    } catch (error) {
      if (!(error instanceof PeerError)) throw error;
      refuse(`${form.name} on ${provider}: ${error.message}`);
    }
  }
  if (best === null && wrong !== null) throw new Error(`bench: no form on ${provider} computes what we do: ${wrong}`);
  if (!best?.side.gone) return best;
  // A form after it took the process down.
  const { form } = best;
  const side = await unlessPeer(
    () => peer.open(form, provider),
    (error) => refuse(`${form.name} on ${provider}, again: ${error.message}`),
  );
  return side && { form, side };
}

/** What a peer computes that we do not, or null. */
function differenceOf(
  { name }: PeerForm,
  ours: readonly number[],
  sample: readonly number[],
  tolerance: number,
): string | null {
  const gap = Math.max(...ours.map((value, i) => Math.abs(value - (sample[i] ?? Number.NaN))));
  if (gap <= tolerance) return null;
  return `expected ${name} to give our results within ${tolerance}, got ${sample.join(", ")} for ${ours.join(", ")}`;
}
