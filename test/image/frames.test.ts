// Frames of animations, drawn over each other as Pillow draws them.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { test } from "node:test";
import { decodeImage, frameCount } from "../../src/image/decode.ts";
import { fixtures, readJson } from "../fixture-files.ts";

const folder = path.join(fixtures, "animations");
const { width, height, frames } = await readJson<{
  readonly width: number;
  readonly height: number;
  /** Of each file the RGB of every frame, in base64. */
  readonly frames: Readonly<Record<string, readonly string[]>>;
}>("animations/expected.json");

for (const [name, expected] of Object.entries(frames)) {
  test(`${name}: every frame is Pillow's`, async () => {
    const file = await readFile(path.join(folder, name));
    assert.equal(await frameCount(file), expected.length);
    for (const [frame, rgb] of expected.entries()) {
      const image = await decodeImage(file, frame);
      assert.deepEqual([image.width, image.height], [width, height]);
      assert.deepEqual([...image.data], [...Buffer.from(rgb, "base64")], `frame ${frame}`);
    }
    assert.deepEqual(await decodeImage(file), await decodeImage(file, 0));
    await assert.rejects(decodeImage(file, expected.length), {
      name: "ImageError",
      message: `image: expected a frame below ${expected.length}, got ${expected.length}`,
    });
  });
}

test("what is not animated has one frame; a later frame that is damaged is told in one sentence", async () => {
  assert.equal(await frameCount(await readFile(path.join(fixtures, "images", "shapes.png"))), 1);
  assert.equal(await frameCount(await readFile(path.join(fixtures, "decode", "palette.gif"))), 1);
  assert.equal(await frameCount(await readFile(path.join(fixtures, "decode", "pages.tiff"))), 1);
  await assert.rejects(frameCount(new Uint8Array(0)), { name: "ImageError" });
  const whole = await readFile(path.join(fixtures, "decode", "animated.webp"));
  const damaged = Buffer.from(whole).fill(0xa5, whole.length - 60);
  assert.ok(await decodeImage(damaged, 0));
  await assert.rejects(
    decodeImage(damaged, 1),
    /^ImageError: image: expected a whole webp file, got one whose frame 1 /,
  );
});

test("an animation of too many pixels is refused before anything is decoded", async () => {
  // The four small frames 75 times over, on a canvas of 2000 x 2000.
  const file = await readFile(path.join(folder, "keep.gif"));
  const head = Buffer.from(file.subarray(0, 13 + 24));
  head.writeUInt16LE(2000, 6);
  head.writeUInt16LE(2000, 8);
  const many = Buffer.concat([head, ...new Array<Buffer>(75).fill(file.subarray(13 + 24, -1)), file.subarray(-1)]);
  await assert.rejects(
    frameCount(many),
    /expected at most 1073741824 pixels in all frames, got 300 frames of 2000 x 2000;/,
  );
});
