// T5's buckets of distances between tokens. Raffel et al., "Exploring the Limits of Transfer Learning with a Unified
// Text-to-Text Transformer" (2020). Upstream: transformers 4.57.6, models/t5/modeling_t5.py, _relative_position_bucket.

/** What text_config says about distances. */
export interface RelativePositions {
  /** Rows of the table of biases. */
  readonly buckets: number;
  /** Farther tokens are all alike. */
  readonly maxDistance: number;
}

/**
 * The bucket of each distance from a query to a key, from -maxDistance (before the query) to maxDistance (behind it).
 * @param bidirectional half of the buckets are for keys behind the query; if not, those keys share the query's own bucket
 */
export function relativeBuckets({ buckets, maxDistance }: RelativePositions, bidirectional: boolean): number[] {
  const each = bidirectional ? Math.floor(buckets / 2) : buckets;
  return Array.from({ length: 2 * maxDistance + 1 }, (_, i) => {
    const distance = i - maxDistance;
    if (!bidirectional) return bucketOf(Math.max(0, -distance), each, maxDistance);
    return (distance > 0 ? each : 0) + bucketOf(Math.abs(distance), each, maxDistance);
  });
}

/** Of an encoder, which sees both sides, and of a decoder. */
export function bucketsOfBoth(positions: RelativePositions) {
  return { encoder: relativeBuckets(positions, true), decoder: relativeBuckets(positions, false) };
}

/** A bucket for each of the nearest tokens, then buckets that grow by a constant factor; in f32, as upstream. */
function bucketOf(distance: number, buckets: number, maxDistance: number): number {
  const exact = Math.floor(buckets / 2);
  if (distance < exact) return distance;
  const ratio = Math.fround(Math.log(Math.fround(distance / exact)));
  const share = Math.fround(ratio / Math.fround(Math.log(maxDistance / exact)));
  return Math.min(buckets - 1, exact + Math.trunc(Math.fround(share * (buckets - exact))));
}
