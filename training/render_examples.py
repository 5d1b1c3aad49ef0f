"""Draw the 24 example images: scenes of the held-out splits, in the sizes, shapes and formats that pictures come in.

    training/render_examples.py --out examples     writes examples/images/ and examples/captions.jsonl

Short sides are 120 to 480 pixels, long ones up to 5/4 of that: BLIP-2 squeezes a picture into a square, and squeezed things
were not in training. One JPEG is stored lying on its side, with the EXIF orientation that turns it upright.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from collections import Counter
from pathlib import Path

from PIL import Image

import texts
from scenes import Scene, draw_scene, render

SPLITS = {"test-comb": 10, "test-iid": 10, "test-comb-hard": 2, "test-iid-hard": 2}
MOST_OF_A_KIND = 2  # pictures that show a kind
MOST_ALONE = 6  # pictures of a split that show one kind only
TURNED = 6  # the image that is stored lying
QUALITY = 92


def chosen(rng: random.Random) -> list[Scene]:
    """Scenes in any order, so varied that no kind is seen too often."""
    found: list[Scene] = []
    shown: Counter[int] = Counter()
    for split, number in SPLITS.items():
        alone, wanted = 0, len(found) + number
        while len(found) < wanted:
            scene = draw_scene(split, rng.randrange(1000))
            kinds = list(scene.counts())
            if any(shown[kind] == MOST_OF_A_KIND for kind in kinds) or (len(kinds) == 1 and alone == MOST_ALONE):
                continue
            alone += len(kinds) == 1
            shown.update(kinds)
            found.append(scene)
    rng.shuffle(found)
    return found


def size_of(rng: random.Random) -> tuple[int, int]:
    short = rng.choice([120, 160, 200, 224, 240, 256, 300, 320, 360, 400, 480])
    long = round(short * rng.choice([1.0, 1.0, 1.1, 1.15, 1.2, 1.25]))
    return (short, long) if rng.random() < 0.4 else (long, short)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    rng = random.Random("examples 1")
    folder = out / "images"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    lines = []
    for number, scene in enumerate(chosen(rng), start=1):
        picture = render(scene, *size_of(rng))
        name = f"scene-{number:02}.{'jpg' if number % 2 == 0 else 'png'}"
        if number == TURNED:
            exif = Image.Exif()
            exif[0x0112] = 6  # shown after a quarter turn clockwise
            picture.transpose(Image.Transpose.ROTATE_90).save(folder / name, quality=QUALITY, exif=exif)
        elif name.endswith("jpg"):
            picture.save(folder / name, quality=QUALITY)
        else:
            picture.save(folder / name, optimize=True)
        lines.append(json.dumps({"image": f"images/{name}", "text": texts.caption(texts.told(scene))}) + "\n")
    (out / "captions.jsonl").write_text("".join(lines))


if __name__ == "__main__":
    main()
