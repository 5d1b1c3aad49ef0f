"""
Draws examples/images/*: 24 simple scenes, and writes examples/captions.json with what each of them shows.
Needs Pillow only: python make-images.py. Drawn at twice the size and reduced, so that edges are smooth.
"""

import json
import math
from pathlib import Path

from PIL import Image, ImageDraw

folder = Path(__file__).parent / "images"
colours = {
    "red": (214, 40, 40),
    "green": (46, 139, 70),
    "blue": (38, 84, 200),
    "yellow": (247, 203, 49),
    "orange": (240, 130, 30),
    "purple": (130, 60, 160),
    "brown": (121, 80, 46),
    "black": (30, 30, 34),
    "white": (250, 250, 248),
    "gray": (140, 144, 150),
    "pink": (240, 140, 170),
    "sky": (166, 208, 240),
    "night": (22, 28, 60),
    "grass": (120, 176, 86),
    "sea": (52, 120, 180),
    "sand": (226, 205, 150),
}

# (file, (width, height), ground, [(shape, colour, x, y, size)], caption); x, y and size are parts of the shorter side.
scenes = [
    ("red-circle.png", (240, 240), "white", [("circle", "red", 0.5, 0.5, 0.6)], "a red circle on a white background"),
    ("blue-square.jpg", (300, 220), "yellow", [("square", "blue", 0.68, 0.5, 0.5)], "a blue square on a yellow background"),
    ("green-triangle.png", (200, 300), "white", [("triangle", "green", 0.5, 0.75, 0.7)], "a green triangle on a white background"),
    ("yellow-star.png", (320, 240), "night", [("star", "yellow", 0.67, 0.5, 0.6)], "a yellow star in a dark sky"),
    ("circle-above-square.png", (220, 320), "white", [("circle", "red", 0.5, 0.4, 0.45), ("square", "blue", 0.5, 1.02, 0.5)], "a red circle above a blue square"),
    ("triangle-left-of-circle.jpg", (360, 200), "gray", [("triangle", "yellow", 0.45, 0.5, 0.6), ("circle", "purple", 1.3, 0.5, 0.55)], "a yellow triangle to the left of a purple circle"),
    ("three-circles.png", (360, 160), "white", [("circle", c, x, 0.5, 0.5) for c, x in (("red", 0.45), ("green", 1.12), ("blue", 1.8))], "a red, a green and a blue circle in a row"),
    ("two-stars.png", (300, 200), "night", [("star", "white", 0.4, 0.4, 0.4), ("star", "yellow", 1.1, 0.6, 0.5)], "a white star and a yellow star at night"),
    ("house.jpg", (320, 240), "meadow", [("house", "red", 0.66, 0.56, 0.55)], "a red house on green grass under a blue sky"),
    ("house-and-tree.jpg", (400, 260), "meadow", [("house", "yellow", 0.5, 0.58, 0.5), ("tree", "green", 1.15, 0.52, 0.6)], "a yellow house next to a green tree"),
    ("house-at-night.png", (280, 280), "snow-night", [("house", "brown", 0.5, 0.58, 0.5), ("moon", "white", 0.78, 0.2, 0.2)], "a brown house in the snow under the moon"),
    ("two-trees.jpg", (340, 240), "meadow", [("tree", "green", 0.4, 0.5, 0.6), ("tree", "orange", 1.0, 0.52, 0.6)], "a green tree and an orange tree on a meadow"),
    ("sun-over-the-sea.jpg", (360, 240), "coast", [("sun", "yellow", 1.1, 0.25, 0.3)], "a yellow sun over the blue sea"),
    ("boat.jpg", (320, 320), "coast", [("boat", "red", 0.5, 0.5, 0.5)], "a red boat with a white sail on the water"),
    ("two-boats.png", (420, 240), "coast", [("boat", "black", 0.45, 0.5, 0.45), ("boat", "orange", 1.25, 0.52, 0.5)], "a black boat and an orange boat on the sea"),
    ("fish.png", (300, 200), "sea", [("fish", "orange", 0.75, 0.5, 0.6)], "an orange fish in blue water"),
    ("three-fish.jpg", (400, 300), "sea", [("fish", "yellow", 0.4, 0.3, 0.35), ("fish", "red", 0.95, 0.5, 0.35), ("fish", "yellow", 0.5, 0.75, 0.35)], "three fish swimming in the sea, one of them red"),
    ("car.jpg", (360, 220), "road", [("car", "blue", 0.8, 0.6, 0.55)], "a blue car on a gray road"),
    ("two-cars.png", (440, 220), "road", [("car", "red", 0.5, 0.6, 0.5), ("car", "white", 1.45, 0.6, 0.5)], "a red car and a white car on the road"),
    ("car-and-tree.jpg", (260, 340), "road", [("tree", "green", 0.75, 0.42, 0.5), ("car", "yellow", 0.42, 0.88, 0.5)], "a yellow car in front of a green tree"),
    ("flower.png", (220, 300), "meadow", [("flower", "pink", 0.5, 0.65, 0.7)], "a pink flower with a green stem"),
    ("three-flowers.jpg", (360, 240), "meadow", [("flower", c, x, 0.55, 0.5) for c, x in (("red", 0.3), ("yellow", 0.75), ("purple", 1.2))], "a red, a yellow and a purple flower on a meadow"),
    ("snowman.png", (240, 300), "snow", [("snowman", "white", 0.5, 0.65, 0.8)], "a snowman with a black hat"),
    ("boat-turned.jpg", (340, 240), "coast", [("boat", "green", 0.6, 0.5, 0.5), ("sun", "orange", 1.15, 0.2, 0.22)], "a green boat on the sea under an orange sun"),
]  # fmt: skip


def ground(kind: str, width: int, height: int) -> Image.Image:
    """A plain colour, or a landscape of sky and land."""
    above, below, horizon = {
        "meadow": ("sky", "grass", 0.62),
        "coast": ("sky", "sea", 0.55),
        "road": ("sky", "gray", 0.6),
        "snow": ("sky", "white", 0.6),
        "snow-night": ("night", "white", 0.7),
    }.get(kind, (kind, kind, 1.0))
    image = Image.new("RGB", (width, height), colours[above])
    ImageDraw.Draw(image).rectangle([0, height * horizon, width, height], fill=colours[below])
    return image


def polygon(draw, colour: str, x: float, y: float, size: float, points) -> None:
    """points in units of `size` around (x, y)."""
    draw.polygon([(x + size * px, y + size * py) for px, py in points], fill=colours[colour])


def disc(draw, colour: str, x: float, y: float, radius: float) -> None:
    draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colours[colour])


def box(draw, colour: str, x0: float, y0: float, x1: float, y1: float) -> None:
    draw.rectangle([x0, y0, x1, y1], fill=colours[colour])


def shape(draw, kind: str, colour: str, x: float, y: float, s: float) -> None:
    """Draws one thing of size s, in pixels, centred at (x, y)."""
    if kind in ("circle", "moon"):
        disc(draw, colour, x, y, s / 2)
    elif kind == "square":
        box(draw, colour, x - s / 2, y - s / 2, x + s / 2, y + s / 2)
    elif kind == "triangle":
        polygon(draw, colour, x, y, s, [(0, -0.5), (0.5, 0.45), (-0.5, 0.45)])
    elif kind == "star":
        spikes = [(math.sin(i * math.pi / 5), -math.cos(i * math.pi / 5), 0.5 if i % 2 == 0 else 0.2) for i in range(10)]
        polygon(draw, colour, x, y, s, [(px * r, py * r) for px, py, r in spikes])
    elif kind == "sun":
        for i in range(12):
            angle = i * math.pi / 6
            points = [(angle - 0.12, 0.3), (angle, 0.62), (angle + 0.12, 0.3)]
            polygon(draw, colour, x, y, s, [(math.cos(a) * r, math.sin(a) * r) for a, r in points])
        disc(draw, colour, x, y, s * 0.36)
    elif kind == "house":
        box(draw, colour, x - s * 0.4, y - s * 0.15, x + s * 0.4, y + s * 0.45)
        polygon(draw, "brown" if colour != "brown" else "black", x, y, s, [(0, -0.55), (0.5, -0.15), (-0.5, -0.15)])
        box(draw, "black", x - s * 0.08, y + s * 0.12, x + s * 0.08, y + s * 0.45)
        for side in (-0.25, 0.25):
            box(draw, "white", x + s * (side - 0.08), y - s * 0.05, x + s * (side + 0.08), y + s * 0.1)
    elif kind == "tree":
        box(draw, "brown", x - s * 0.07, y, x + s * 0.07, y + s * 0.5)
        for dx, dy, r in ((0, -0.25, 0.3), (-0.2, -0.05, 0.22), (0.2, -0.05, 0.22)):
            disc(draw, colour, x + s * dx, y + s * dy, s * r)
    elif kind == "boat":
        polygon(draw, colour, x, y, s, [(-0.5, 0.15), (0.5, 0.15), (0.3, 0.42), (-0.3, 0.42)])
        box(draw, "brown", x - s * 0.02, y - s * 0.5, x + s * 0.02, y + s * 0.15)
        polygon(draw, "white", x, y, s, [(0.05, -0.48), (0.05, 0.1), (0.42, 0.1)])
    elif kind == "fish":
        draw.ellipse([x - s * 0.5, y - s * 0.25, x + s * 0.25, y + s * 0.25], fill=colours[colour])
        polygon(draw, colour, x, y, s, [(0.15, 0), (0.5, -0.25), (0.5, 0.25)])
        disc(draw, "black", x - s * 0.32, y - s * 0.05, s * 0.04)
    elif kind == "car":
        polygon(draw, colour, x, y, s, [(-0.3, -0.05), (-0.18, -0.3), (0.2, -0.3), (0.34, -0.05)])
        box(draw, colour, x - s * 0.55, y - s * 0.08, x + s * 0.55, y + s * 0.2)
        polygon(draw, "sky", x, y, s, [(-0.22, -0.07), (-0.14, -0.25), (0.16, -0.25), (0.26, -0.07)])
        for side in (-0.3, 0.3):
            disc(draw, "black", x + s * side, y + s * 0.2, s * 0.13)
            disc(draw, "gray", x + s * side, y + s * 0.2, s * 0.06)
    elif kind == "flower":
        box(draw, "green", x - s * 0.03, y - s * 0.1, x + s * 0.03, y + s * 0.6)
        for i in range(6):
            disc(draw, colour, x + s * 0.2 * math.cos(i * math.pi / 3), y + s * (0.2 * math.sin(i * math.pi / 3) - 0.2), s * 0.13)
        disc(draw, "yellow" if colour != "yellow" else "brown", x, y - s * 0.2, s * 0.11)
    elif kind == "snowman":
        for dy, r in ((0.3, 0.28), (-0.05, 0.2), (-0.32, 0.14)):
            disc(draw, "gray", x, y + s * dy, s * (r + 0.012))
            disc(draw, colour, x, y + s * dy, s * r)
        box(draw, "black", x - s * 0.18, y - s * 0.46, x + s * 0.18, y - s * 0.43)
        box(draw, "black", x - s * 0.11, y - s * 0.62, x + s * 0.11, y - s * 0.45)
        for side in (-0.05, 0.05):
            disc(draw, "black", x + s * side, y - s * 0.35, s * 0.018)
        polygon(draw, "orange", x, y, s, [(0, -0.32), (0.14, -0.29), (0, -0.28)])


def draw_scene(file: str, size: tuple[int, int], kind: str, things: list) -> None:
    width, height = size
    large = ground(kind, width * 2, height * 2)
    unit = min(size) * 2
    for what, colour, x, y, s in things:
        shape(ImageDraw.Draw(large), what, colour, x * unit, y * unit, s * unit)
    image = large.resize(size, Image.Resampling.LANCZOS)
    if file == "boat-turned.jpg":
        # As a telephone stores it: lying on its side, with the note to turn it by 90 degrees.
        exif = Image.Exif()
        exif[0x0112] = 6
        image.transpose(Image.Transpose.ROTATE_90).save(folder / file, quality=90, exif=exif)
    elif file.endswith(".jpg"):
        image.save(folder / file, quality=90)
    else:
        image.save(folder / file, optimize=True)


def main() -> None:
    folder.mkdir(exist_ok=True)
    for file, size, kind, things, _ in scenes:
        draw_scene(file, size, kind, things)
    captions = {file: caption for file, *_, caption in sorted(scenes)}
    (folder.parent / "captions.json").write_text(json.dumps(captions, indent=2) + "\n")


if __name__ == "__main__":
    main()
