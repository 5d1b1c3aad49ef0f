// Ids that end where their text does: looked at while more of them are made, and given up as soon as they hold the end.

/** Makes ids, tells of those that are there, and stops when the signal says so. */
export type MakeIds = (onIds: (ids: readonly number[]) => void, signal: AbortSignal) => Promise<readonly number[]>;

/** How many of the ids make the whole text, of which `checked` are known not to; null while it has no end. */
export type FindEnd = (ids: readonly number[], checked: number) => Promise<number | null>;

/**
 * The ids of `make` up to the end that `findEnd` sees; all of them if there is none. It depends on the ids alone, not on
 * how many came at once or how far `make` had gone.
 * @param onIds told of ids that are there and go on
 */
export async function untilStopped(
  make: MakeIds,
  findEnd: FindEnd,
  {
    signal,
    onIds,
  }: { readonly signal?: AbortSignal | undefined; readonly onIds?: ((ids: readonly number[]) => void) | undefined },
): Promise<number[]> {
  const stop = new AbortController();
  let checked = 0;
  let checking: Promise<number[] | null> = Promise.resolve(null);
  const check = (ids: readonly number[]) => {
    checking = checking.then(async (found) => {
      if (found !== null) return found;
      const length = await findEnd(ids, checked);
      checked = ids.length;
      if (length === null) {
        onIds?.(ids);
        return null;
      }
      stop.abort(new Error("the text has its end"));
      return ids.slice(0, length);
    });
    checking.catch((error: unknown) => stop.abort(error)); // thrown below
  };
  try {
    const ids = await make(check, signal === undefined ? stop.signal : AbortSignal.any([signal, stop.signal]));
    check(ids);
    return (await checking) ?? [...ids];
  } catch (error) {
    const found = stop.signal.aborted ? await checking : null;
    if (found === null) throw error;
    return found;
  }
}
