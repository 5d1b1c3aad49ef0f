// OPT in f64, the whole sequence at once, without a cache; `round` stands where --dtype f16 rounds.

export interface ReferenceTensor {
  readonly shape: readonly number[];
  readonly values: ArrayLike<number>;
}

export interface OptReference {
  readonly heads: number;
  readonly layers: number;
  readonly eps: number;
  /** By checkpoint name. */
  readonly tensor: (name: string) => ReferenceTensor;
  /** Rounds weights of matrices, inputs of products, keys and values; identity under f32. */
  readonly round: (value: number) => number;
  /** Rounds the position table. */
  readonly roundPosition: (value: number) => number;
}

type Row = number[];

/** Image slots, then ids -> logits after every position, (tokens, vocabulary) */
export function optLogits(model: OptReference, prompt: readonly Row[], ids: readonly number[]): Row[] {
  const { tensor, round, roundPosition, heads, eps } = model;
  const decoder = "model.decoder";
  const at = (name: string, i: number) => tensor(name).values[i] ?? Number.NaN;
  const width = tensor(`${decoder}.embed_tokens.weight`).shape[1] ?? 0;
  const linear = (x: Row, name: string): Row => {
    const { shape } = tensor(`${name}.weight`);
    const inputs = x.map(round);
    return Array.from({ length: shape[0] ?? 0 }, (_, c) =>
      inputs.reduce(
        (sum, value, i) => sum + value * round(at(`${name}.weight`, c * inputs.length + i)),
        at(`${name}.bias`, c),
      ),
    );
  };
  const norm = (x: Row, name: string): Row => {
    const mean = x.reduce((sum, value) => sum + value / x.length, 0);
    const variance = x.reduce((sum, value) => sum + (value - mean) ** 2 / x.length, 0);
    return x.map((v, i) => ((v - mean) / Math.sqrt(variance + eps)) * at(`${name}.weight`, i) + at(`${name}.bias`, i));
  };
  const embedding = (id: number) =>
    Array.from({ length: width }, (_, d) => round(at(`${decoder}.embed_tokens.weight`, id * width + d)));
  let hidden: Row[] = [...prompt, ...ids.map(embedding)].map((row, t) =>
    row.map((value, d) => value + roundPosition(at(`${decoder}.embed_positions.weight`, (t + 2) * width + d))),
  );
  for (let layer = 0; layer < model.layers; layer++) {
    const name = `${decoder}.layers.${layer}`;
    const normed = hidden.map((row) => norm(row, `${name}.self_attn_layer_norm`));
    const queries = normed.map((row) => linear(row, `${name}.self_attn.q_proj`));
    const keys = normed.map((row) => linear(row, `${name}.self_attn.k_proj`).map(round));
    const values = normed.map((row) => linear(row, `${name}.self_attn.v_proj`).map(round));
    const headDim = width / heads;
    hidden = hidden.map((row, t) => {
      const attended: Row = [];
      for (let d = 0; d < width; d++) {
        const head = Math.floor(d / headDim);
        const scores = keys.slice(0, t + 1).map((key) => {
          let score = 0;
          for (let e = head * headDim; e < (head + 1) * headDim; e++) score += (queries[t]?.[e] ?? 0) * (key[e] ?? 0);
          return Math.exp(score / Math.sqrt(headDim));
        });
        const total = scores.reduce((sum, score) => sum + score, 0);
        attended.push(scores.reduce((sum, score, p) => sum + (score / total) * (values[p]?.[d] ?? 0), 0));
      }
      const out = linear(attended, `${name}.self_attn.out_proj`);
      const residual = row.map((value, d) => value + (out[d] ?? 0));
      const inner = linear(norm(residual, `${name}.final_layer_norm`), `${name}.fc1`).map((value) =>
        Math.max(0, value),
      );
      const mlp = linear(inner, `${name}.fc2`);
      return residual.map((value, d) => value + (mlp[d] ?? 0));
    });
  }
  const vocabulary = tensor(`${decoder}.embed_tokens.weight`).shape[0] ?? 0;
  return hidden.map((row) => {
    const last = norm(row, `${decoder}.final_layer_norm`).map(round);
    return Array.from({ length: vocabulary }, (_, id) =>
      embedding(id).reduce((sum, value, d) => sum + value * (last[d] ?? 0), 0),
    );
  });
}
