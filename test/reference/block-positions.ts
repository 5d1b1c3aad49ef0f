// GLM's pairs of positions, row by row.

/** Per row its position, or null for padding, and the positions of its context. */
export function blockPositionsReference(
  rows: readonly { readonly position: number | null; readonly context: number }[],
  none: number,
): number[] {
  return rows.flatMap(({ position, context }) => {
    if (position === null) return [none, none];
    return position < context ? [position, 0] : [context - 1, position - context + 1];
  });
}
