// White space as Python knows it.

/** As Python's str.strip(): Unicode's white space and the four separators U+001C to U+001F, but not U+FEFF. */
export function stripped(text: string): string {
  let start = 0;
  let end = text.length;
  while (start < end && isSpace(text.charAt(start))) start++;
  while (end > start && isSpace(text.charAt(end - 1))) end--;
  return text.slice(start, end);
}

function isSpace(character: string): boolean {
  return /\p{White_Space}/u.test(character) || (character >= "\x1c" && character <= "\x1f");
}
