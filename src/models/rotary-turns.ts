// The cosines and sines of rotary positions, for kernels/rotary.ts. Su et al., "RoFormer: Enhanced Transformer with Rotary
// Position Embedding" (2021). Upstream: transformers 4.57.6, modeling_rope_utils.py and LlamaRotaryEmbedding.

/** base^(-2i / width) for i < width / 2, in f32. @param width of what one position turns, even */
export function rotaryFrequencies(width: number, base: number): Float32Array {
  return Float32Array.from({ length: width / 2 }, (_, i) => 1 / Math.fround(base ** Math.fround((2 * i) / width)));
}

/**
 * (positions, 2 * frequencies): the cosine and the sine of position * frequency, pair by pair. Angles are products in f32,
 * as upstream; their cosines and sines are rounded once.
 */
export function rotaryTurns(frequencies: Float32Array, positions: number): Float32Array {
  const turns = new Float32Array(positions * 2 * frequencies.length);
  for (let position = 0, at = 0; position < positions; position++) {
    for (const frequency of frequencies) {
      const angle = Math.fround(position * frequency);
      turns[at++] = Math.cos(angle);
      turns[at++] = Math.sin(angle);
    }
  }
  return turns;
}
