// Work on many items at once, hand over their results in the order of the items, as soon as each can be.

/**
 * Run `work` over items, at most `inFlight` started and not yet handed over, and `emit` results in order.
 * `work` must not reject for an item's own fault: what it resolves with says what came of the item. When it does
 * reject, nothing more is started, what is under way is awaited, and the first rejection is thrown.
 */
export async function inOrder<Item, Result>(
  items: Iterable<Item>,
  inFlight: number,
  work: (item: Item) => Promise<Result>,
  emit: (result: Result) => void | Promise<void>,
): Promise<void> {
  const waiting: Promise<Result>[] = [];
  const iterator = items[Symbol.iterator]();
  let exhausted = false;
  const fill = () => {
    while (!exhausted && waiting.length < inFlight) {
      const next = iterator.next();
      if (next.done) {
        exhausted = true;
        return;
      }
      const result = work(next.value);
      result.catch(() => {}); // looked at in its turn below; not unhandled until then
      waiting.push(result);
    }
  };
  try {
    for (fill(); waiting.length > 0; fill()) {
      const [first] = waiting;
      if (first === undefined) return;
      const result = await first;
      void waiting.shift();
      await emit(result);
    }
  } finally {
    await Promise.allSettled(waiting);
  }
}
