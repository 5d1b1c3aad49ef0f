// What a caption says of a scene: which kinds of object, how many of each, and the background's colour.

/** The words that captions of scenes are made of; words.json of the rendered sets. */
export interface Words {
  /** kind -> its plural, which may be the same word */
  readonly kinds: Readonly<Record<string, string>>;
  readonly colours: readonly string[];
  /** At index n the word for n. */
  readonly numbers: readonly string[];
}

export interface CaptionFacts {
  /** kind -> how many; null where the caption gives no number, or names the kind twice */
  readonly kinds: ReadonlyMap<string, number | null>;
  /** null where the caption names none, or several */
  readonly colour: string | null;
}

/**
 * Read a caption such as "three apples and a dog on a blue background". The order of its parts and all other words do not
 * matter; a number counts for the kind that follows it at once, in singular or plural. "a", "an" and "one" are one.
 */
export function captionFacts(caption: string, words: Words): CaptionFacts {
  const kindOf = new Map(
    Object.entries(words.kinds).flatMap(([kind, plural]) => [[kind, kind] as const, [plural, kind]]),
  );
  const numbers = new Map(words.numbers.map((word, number) => [word, number] as const).slice(1));
  for (const article of ["a", "an"]) numbers.set(article, 1);
  const said = caption.toLowerCase().match(/[a-z]+/g) ?? [];
  const kinds = new Map<string, number | null>();
  for (const [i, word] of said.entries()) {
    const kind = kindOf.get(word);
    if (kind === undefined) continue;
    const number = numbers.get(said[i - 1] ?? "") ?? null;
    kinds.set(kind, kinds.has(kind) ? null : number);
  }
  const colours = new Set(said.filter((word) => words.colours.includes(word)));
  const [colour = null] = colours;
  return { kinds, colour: colours.size === 1 ? colour : null };
}
