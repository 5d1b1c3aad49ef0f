/**
 * The palette's colour at the transparent index of a GIF's first frame, black where there is none. Reads the blocks in
 * front of the first frame only (GIF89a specification, sections 18 to 23).
 */
export function gifTransparentColour(file: Uint8Array): readonly [number, number, number] {
  const black = [0, 0, 0] as const;
  const byte = (at: number) => file[at] ?? 0;
  /** Bytes of the colour table that a packed field announces. */
  const tableSize = (packed: number) => (packed & 0x80 ? 3 << ((packed & 7) + 1) : 0);
  let table = 13;
  let at = table + tableSize(byte(10));
  let index: number | null = null;
  while (at < file.length && byte(at) === 0x21) {
    // Extension: label, then sub-blocks up to an empty one. Label 0xf9 is the graphic control extension.
    if (byte(at + 1) === 0xf9) index = byte(at + 3) & 1 ? byte(at + 6) : null;
    at += 2;
    while (at < file.length && byte(at) !== 0) at += byte(at) + 1;
    at += 1;
  }
  if (byte(at) !== 0x2c || index === null) return black;
  if (byte(at + 9) & 0x80) table = at + 10;
  else if ((byte(10) & 0x80) === 0) return black;
  const entry = table + index * 3;
  return [byte(entry), byte(entry + 1), byte(entry + 2)];
}
