// The colours that Pillow gives what a GIF leaves transparent, where libvips paints black. Reads blocks, never pixels
// (GIF89a specification, sections 18 to 23).

type Colour = readonly [number, number, number];

const black: Colour = [0, 0, 0];

/** What a frame says of itself in front of its pixels. */
interface FrameHead {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
  /** 2: its rectangle is cleared before the next frame is drawn. */
  readonly disposal: number;
  /** The palette's colour at the transparent index; null where there is none. */
  readonly clear: Colour | null;
}

/**
 * For a frame of a GIF, (height, width, 3): the colour of each pixel where it is transparent. At first that of the first
 * frame's transparent index, black where there is none; then of the last frame before this one that cleared the pixel.
 */
export function gifClearColours(file: Uint8Array, frame: number, width: number, height: number): Uint8Array {
  const heads = frameHeads(file, frame + 1);
  const colours = new Uint8Array(width * height * 3);
  const fill = ([red, green, blue]: Colour, head: Omit<FrameHead, "disposal" | "clear">) => {
    for (let y = head.top; y < Math.min(height, head.top + head.height); y++) {
      for (let x = head.left; x < Math.min(width, head.left + head.width); x++) {
        colours.set([red, green, blue], 3 * (y * width + x));
      }
    }
  };
  fill(heads[0]?.clear ?? black, { left: 0, top: 0, width, height });
  for (const head of heads.slice(0, frame)) if (head.disposal === 2) fill(head.clear ?? black, head);
  return colours;
}

/** The heads of the first frames of a file. */
function frameHeads(file: Uint8Array, most: number): FrameHead[] {
  const byte = (at: number) => file[at] ?? 0;
  const word = (at: number) => byte(at) + 256 * byte(at + 1);
  /** Bytes of the colour table that a packed field announces. */
  const tableSize = (packed: number) => (packed & 0x80 ? 3 << ((packed & 7) + 1) : 0);
  /** Behind sub-blocks, the last of which is empty. */
  const behind = (at: number) => {
    let next = at;
    while (next < file.length && byte(next) !== 0) next += byte(next) + 1;
    return next + 1;
  };
  const heads: FrameHead[] = [];
  let at = 13 + tableSize(byte(10));
  let [disposal, index]: [number, number | null] = [0, null];
  while (at < file.length && heads.length < most) {
    if (byte(at) === 0x21) {
      // Extension: label, then sub-blocks. Label 0xf9 is the graphic control extension of the next frame.
      if (byte(at + 1) === 0xf9) {
        disposal = (byte(at + 3) >> 2) & 7;
        index = byte(at + 3) & 1 ? byte(at + 6) : null;
      }
      at = behind(at + 2);
    } else if (byte(at) === 0x2c) {
      const packed = byte(at + 9);
      const table = packed & 0x80 ? at + 10 : byte(10) & 0x80 ? 13 : null;
      const entry = index === null || table === null ? null : table + 3 * index;
      const clear: Colour | null = entry === null ? null : [byte(entry), byte(entry + 1), byte(entry + 2)];
      const place = { left: word(at + 1), top: word(at + 3), width: word(at + 5), height: word(at + 7) };
      heads.push({ ...place, disposal, clear });
      [disposal, index] = [0, null];
      at = behind(at + 10 + tableSize(packed) + 1);
    } else {
      return heads;
    }
  }
  return heads;
}
