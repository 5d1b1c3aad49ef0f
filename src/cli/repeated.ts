// Flags that may be given several times.

/** Collects the values of such a flag, for commander. */
export function repeated(value: string, before: readonly string[] = []): readonly string[] {
  return [...before, value];
}
