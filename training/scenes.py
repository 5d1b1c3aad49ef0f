"""Rendered scenes that can be checked: emoji sprites on a coloured background, with all that is true of them.

A scene is drawn from (split, index) alone, so any scene can be made again on any machine that has the font.

    training/scenes.py --show 16 --split train out.png     a contact sheet to look at
"""

from __future__ import annotations

import argparse
import hashlib
import math
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

FONT = Path(os.environ.get("BLIPFLEET_EMOJI_FONT", "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"))
FONT_PIXELS = 109  # the only size that this bitmap font has
SIDE = 112  # pixels; what the vision tower sees

# kind -> (emoji, plural)
KINDS: dict[str, tuple[str, str]] = {
    "apple": ("🍎", "apples"),
    "banana": ("🍌", "bananas"),
    "strawberry": ("🍓", "strawberries"),
    "lemon": ("🍋", "lemons"),
    "pizza": ("🍕", "pizzas"),
    "donut": ("🍩", "donuts"),
    "cake": ("🎂", "cakes"),
    "dog": ("🐶", "dogs"),
    "cat": ("🐱", "cats"),
    "pig": ("🐷", "pigs"),
    "cow": ("🐮", "cows"),
    "frog": ("🐸", "frogs"),
    "elephant": ("🐘", "elephants"),
    "turtle": ("🐢", "turtles"),
    "fish": ("🐠", "fish"),
    "bird": ("🐦", "birds"),
    "butterfly": ("🦋", "butterflies"),
    "sunflower": ("🌻", "sunflowers"),
    "cactus": ("🌵", "cactuses"),
    "tree": ("🌲", "trees"),
    "mushroom": ("🍄", "mushrooms"),
    "car": ("🚗", "cars"),
    "bus": ("🚌", "buses"),
    "boat": ("⛵", "boats"),
    "ball": ("⚽", "balls"),
    "balloon": ("🎈", "balloons"),
    "guitar": ("🎸", "guitars"),
    "clock": ("⏰", "clocks"),
    "crown": ("👑", "crowns"),
    "house": ("🏠", "houses"),
}
KIND_NAMES = list(KINDS)

# colour -> RGB of the middle shade
COLOURS: dict[str, tuple[int, int, int]] = {
    "white": (244, 244, 244),
    "gray": (136, 136, 136),
    "red": (206, 52, 48),
    "orange": (245, 150, 44),
    "yellow": (248, 224, 92),
    "green": (84, 168, 84),
    "blue": (72, 124, 214),
    "purple": (142, 84, 176),
}
COLOUR_NAMES = list(COLOURS)
MOST_COPIES = 5


@dataclass(frozen=True)
class Thing:
    """One object: its kind, centre (x right, y down) and size, as fractions of the image's sides."""

    kind: int
    x: float
    y: float
    size: float
    tilt: float


@dataclass(frozen=True)
class Scene:
    colour: int
    gradient: bool
    things: tuple[Thing, ...]
    seed: tuple[int, ...]

    def counts(self) -> dict[int, int]:
        """kind -> copies, the most first, then by name."""
        found: dict[int, int] = {}
        for thing in self.things:
            found[thing.kind] = found.get(thing.kind, 0) + 1
        return dict(sorted(found.items(), key=lambda item: (-item[1], KIND_NAMES[item[0]])))


def held_out(kind: int, count: int, colour: int) -> str:
    """Which split a (kind, count, colour) combination belongs to: "test", "dev" or "train"."""
    text = f"{KIND_NAMES[kind]}/{count}/{COLOUR_NAMES[colour]}"
    share = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32
    return "test" if share < 0.10 else "dev" if share < 0.14 else "train"


def draw_counts(rng: np.random.Generator, hard: bool) -> list[int]:
    """Copies of each kind. Core scenes: 1-2 kinds, at most 5 objects. Hard ones: up to 3 kinds and 7 objects."""
    while True:
        kinds = int(rng.choice([1, 2, 3], p=[0.25, 0.35, 0.40] if hard else [0.4, 0.6, 0.0]))
        counts = [int(c) for c in rng.integers(1, MOST_COPIES + 1, size=kinds)]
        if sum(counts) <= (7 if hard else 5) and not (hard and kinds < 3 and sum(counts) <= 5):
            return counts


# What each split draws: which combinations it may use, and whether scenes are hard. `train` mixes both.
SPLITS = {
    "train": (1, "train", None),
    "dev-iid": (2, "train", False),
    "dev-comb": (3, "dev", False),
    "test-iid": (4, "train", False),
    "test-comb": (5, "test", False),
    "test-comb-hard": (6, "test", True),
    "test-iid-hard": (7, "train", True),
}


def draw_scene(split: str, index: int) -> Scene:
    """The scene number `index` of a split. Every (kind, count, colour) in it belongs to that split's combinations."""
    number, combinations, hard = SPLITS[split]
    rng = np.random.default_rng([20261121, number, index])
    is_hard = bool(rng.random() < 0.35) if hard is None else hard
    while True:
        colour = int(rng.integers(len(COLOURS)))
        counts = draw_counts(rng, is_hard)
        kinds = [int(k) for k in rng.choice(len(KINDS), size=len(counts), replace=False)]
        if any(held_out(k, c, colour) != combinations for k, c in zip(kinds, counts)):
            continue
        things = place(rng, [k for k, c in zip(kinds, counts) for _ in range(c)])
        if things is not None:
            gradient = bool(rng.random() < 0.4)
            return Scene(colour, gradient, things, (20261121, number, index, 1))


def place(rng: np.random.Generator, kinds: list[int]) -> tuple[Thing, ...] | None:
    """Random places, sizes and tilts without heavy overlap; None when they do not fit."""
    largest = 0.41 if len(kinds) <= 4 else 0.36 if len(kinds) == 5 else 0.31
    things: list[Thing] = []
    for kind in kinds:
        for _ in range(60):
            size = float(rng.uniform(0.22, largest))
            x, y = rng.uniform(size / 2, 1 - size / 2, size=2)
            if all(math.hypot(x - t.x, y - t.y) > 0.46 * (size + t.size) for t in things):
                things.append(Thing(kind, float(x), float(y), size, float(rng.uniform(-20, 20))))
                break
        else:
            return None
    return tuple(things)


@lru_cache(maxsize=None)
def sprite(kind: int) -> Image.Image:
    """The kind's emoji as RGBA, cropped to what is drawn and padded to a square."""
    if not FONT.exists():
        raise SystemExit(f"{FONT} is missing: install Debian's package fonts-noto-color-emoji")
    try:
        font = ImageFont.truetype(str(FONT), FONT_PIXELS)
    except OSError as error:
        raise SystemExit(f"{FONT}: expected a font of colour emoji, got {error}; Debian's package fonts-noto-color-emoji has one")
    canvas = Image.new("RGBA", (160, 160), (0, 0, 0, 0))
    ImageDraw.Draw(canvas).text((12, 12), KINDS[KIND_NAMES[kind]][0], font=font, embedded_color=True)
    drawn = canvas.crop(canvas.getbbox())
    side = max(drawn.size)
    square = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    square.paste(drawn, ((side - drawn.width) // 2, (side - drawn.height) // 2))
    return square


@lru_cache(maxsize=4096)
def turned(kind: int, side: int, tilt: int) -> Image.Image:
    small = sprite(kind).resize((side, side), Image.LANCZOS)
    return small.rotate(tilt, Image.BICUBIC, expand=True)


def background(rng: np.random.Generator, scene: Scene, width: int, height: int) -> Image.Image:
    middle = np.array(COLOURS[COLOUR_NAMES[scene.colour]], dtype=np.float64)
    middle = middle + rng.uniform(-9, 9, size=3)
    if not scene.gradient:
        return Image.new("RGB", (width, height), tuple(int(v) for v in np.clip(middle, 0, 255)))
    angle, depth = rng.uniform(0, 2 * math.pi), rng.uniform(12, 34)
    ys, xs = np.mgrid[0:height, 0:width]
    ramp = (xs / width - 0.5) * math.cos(angle) + (ys / height - 0.5) * math.sin(angle)
    shade = middle[None, None, :] + depth * ramp[:, :, None]
    return Image.fromarray(np.clip(shade, 0, 255).astype(np.uint8))


def render(scene: Scene, width: int = SIDE, height: int = SIDE) -> Image.Image:
    """Draw a scene at any size. Sprites keep their share of the shorter side."""
    rng = np.random.default_rng(list(scene.seed))
    image = background(rng, scene, width, height)
    for thing in scene.things:
        side = max(8, round(thing.size * min(width, height)))
        picture = turned(thing.kind, side, round(thing.tilt))
        left = round(thing.x * width - picture.width / 2)
        top = round(thing.y * height - picture.height / 2)
        image.paste(picture, (left, top), picture)
    return image


def training_picture(scene: Scene, index: int) -> np.ndarray:
    """(112, 112, 3) u8: two thirds drawn at that size, one third larger and reduced as the image processor does it."""
    rng = np.random.default_rng([20261121, 99, index])
    if rng.random() < 2 / 3:
        return np.asarray(render(scene))
    short = int(rng.integers(128, 321))
    ratio = float(rng.uniform(1.0, 1.3))
    width, height = (short, round(short * ratio)) if rng.random() < 0.5 else (round(short * ratio), short)
    return np.asarray(render(scene, width, height).resize((SIDE, SIDE), Image.BICUBIC))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out")
    parser.add_argument("--show", type=int, default=16)
    parser.add_argument("--split", choices=SPLITS, default="train")
    options = parser.parse_args()
    columns = math.ceil(math.sqrt(options.show))
    sheet = Image.new("RGB", (columns * 120, math.ceil(options.show / columns) * 120), "black")
    for i in range(options.show):
        picture = Image.fromarray(training_picture(draw_scene(options.split, i), i))
        sheet.paste(picture, ((i % columns) * 120 + 4, (i // columns) * 120 + 4))
    sheet.save(options.out)


if __name__ == "__main__":
    main()
