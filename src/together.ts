// Several results under way at once, whose failures are told as if they had been made one after another.

/**
 * Like Promise.all; but all are waited for, and where several fail the first one in order is thrown, not the one that
 * failed first: what a command or a job says of a mistake does not depend on which thread was quicker.
 */
export async function together<T>(made: readonly Promise<T>[]): Promise<T[]> {
  const settled = await Promise.allSettled(made);
  return settled.map((each) => {
    if (each.status === "rejected") throw each.reason;
    return each.value;
  });
}
