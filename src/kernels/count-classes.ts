// Classes of shapes by one count, as a kernel's variants have them.

export interface CountClass {
  readonly name: string;
  /** The largest count that belongs to it. */
  readonly most: number;
}

/** The name of the first class that holds so many. @throws RangeError where none does: the last should have no bound */
export function classOfCount(classes: readonly CountClass[], count: number): string {
  const found = classes.find(({ most }) => count <= most);
  if (found) return found.name;
  throw new RangeError(`expected a count of at most ${classes.at(-1)?.most}, got ${count}`);
}
