// Where a text ends that is to end with one of some strings.

import type { Tokenizer } from "./tokenizer.ts";

/**
 * How many of the ids it takes until their text holds one of the strings, as transformers 4.57.6 ends generation
 * (generation/stopping_criteria.py, StopStringCriteria): the id that completes the string is the last, whatever text it
 * adds behind the string. Here only the new text counts, there a string may begin in the prompt; and here bytes of
 * several ids that make one character are seen together.
 * @param checked so many of the ids are known not to hold any
 * @returns null while there is none
 */
export function stopLength(
  tokenizer: Tokenizer,
  ids: readonly number[],
  stopStrings: readonly string[],
  checked = 0,
): number | null {
  for (let length = checked + 1; length <= ids.length; length++) {
    const text = tokenizer.continuation(ids.slice(0, length));
    if (stopStrings.some((stop) => text.includes(stop))) return length;
  }
  return null;
}
